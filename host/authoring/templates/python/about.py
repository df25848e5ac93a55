
# Each key with its default; the JSON Schema is made of it.
CONFIG = {{ config_python }}
SUMMARIES = {{ summaries_python }}
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}
config = dict(CONFIG)


class About(exports.About):
    def describe(self) -> Description:
        properties = {
            key: {"type": TYPES[type(default)], "default": default, "description": SUMMARIES[key]}
            for key, default in CONFIG.items()
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return Description("{{ name }}", "0.1.0", "{{ description }}", json.dumps(schema))

    def configure(self, text: str) -> None:
        given, problems = json.loads(text), []
        for key, value in given.items():
            if key not in CONFIG:
                problems.append(ConfigProblem(key, f"unknown key, expected one of {', '.join(CONFIG)}"))
            elif type(value) is not type(CONFIG[key]):
                problems.append(ConfigProblem(key, f"must be a {TYPES[type(CONFIG[key])]}, got `{json.dumps(value)}`"))
        if problems:
            raise Err(problems)
        config.update(CONFIG | given)
