from wit_world.imports.types import Group, Outcome, Outcome_Abstain, Outcome_Ok, Score as Value


class Score(exports.Score):
    def score(self, groups: list[Group]) -> list[list[Outcome]]:
        return [score_group(it) for it in groups]


def score_group(group: Group) -> list[Outcome]:
    expected = json.loads(group.columns).get(config["column"])
    if not isinstance(expected, str):
        return [Outcome_Abstain(f"no text in column `{config['column']}`") for _ in group.completions]
    return [Outcome_Ok(compare(it.text, expected.strip())) for it in group.completions]


def compare(answer: str, expected: str) -> Value:
    """1 for the expected answer, 0.5 for one that holds it."""
    exact, contains = answer.strip() == expected, expected in answer
    value = 1.0 if exact else 0.5 if contains else 0.0
    return Value(value, [("exact", float(exact)), ("contains", float(contains))])
