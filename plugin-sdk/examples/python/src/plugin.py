"""Reward the expected answer in an answer tag, and a little for the tag alone; judge by the same tags."""
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.about import ConfigProblem, Description
from wit_world.imports.types import (
    Detail, Direction, Group, Metric, Outcome, Outcome_Abstain, Outcome_Ok, Sample, Score as Value,
)

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "column": {"type": "string", "default": "answer", "description": "The column that holds the expected answer."},
        "partial": {"type": "number", "default": 0.1, "description": "The score of a tag with another answer."},
    },
}
KINDS = {"string": str, "number": (int, float)}
config = {key: it["default"] for key, it in SCHEMA["properties"].items()}
graded: list[tuple[float, float]] = []


def tagged(text: str) -> str | None:
    """What stands in the last tag, if it is closed."""
    _, opened, rest = text.rpartition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    return inside.strip() if opened and closed else None


class About(exports.About):
    def describe(self) -> Description:
        summary = "Reward the expected answer in an answer tag, and a little for the tag alone"
        return Description("answer-tag-python", "0.1.0", summary, json.dumps(SCHEMA))

    def configure(self, text: str) -> None:
        problems = []
        for key, value in json.loads(text).items():
            known = SCHEMA["properties"].get(key)
            if known is None:
                problems.append(ConfigProblem(key, "unknown key"))
            elif not isinstance(value, KINDS[known["type"]]):
                problems.append(ConfigProblem(key, f"must be a {known['type']}, got `{json.dumps(value)}`"))
            else:
                config[key] = value
        if problems:
            raise Err(problems)


class Score(exports.Score):
    def score(self, groups: list[Group]) -> list[list[Outcome]]:
        return [self.group(it) for it in groups]

    def group(self, group: Group) -> list[Outcome]:
        expected = json.loads(group.columns).get(config["column"])
        if not isinstance(expected, str):
            return [Outcome_Abstain(f"no text in column `{config['column']}`") for _ in group.completions]
        return [Outcome_Ok(self.one(it.text, expected.strip())) for it in group.completions]

    def one(self, text: str, expected: str) -> Value:
        found = tagged(text)
        parts = [("format", float(found is not None)), ("correct", float(found == expected))]
        return Value(1.0 if found == expected else float(config["partial"]) if found is not None else 0.0, parts)


class Evaluate(exports.Evaluate):
    def grade(self, samples: list[Sample]) -> list[Detail]:
        return [self.one(it) for it in samples]

    def one(self, sample: Sample) -> Detail:
        if sample.reference is None:
            return Detail(sample.id, [], "no expected answer")
        found = tagged(sample.completion.text)
        values = float(found is not None), float(found == sample.reference.strip())
        graded.append(values)
        return Detail(sample.id, [("tagged", values[0]), ("correct", values[1])], None)

    def finish(self) -> list[Metric]:
        rows = list(graded)
        graded.clear()
        if not rows:
            return []
        names = enumerate(("tagged", "correct"))
        share = lambda place: sum(it[place] for it in rows) / len(rows)
        return [Metric(name, share(place), Direction.HIGHER_IS_BETTER, None, len(rows)) for place, name in names]
