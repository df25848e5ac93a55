from wit_world.exports.build import BuildOutcome, BuildOutcome_BadRow, BuildOutcome_Examples
from wit_world.imports.types import (
    Answer_Text, Content_PromptCompletion, Example, Prompt_Text, PromptCompletion, Row,
)


class Build(exports.Build):
    def build(self, rows: list[Row]) -> list[BuildOutcome]:
        return [build_row(it) for it in rows]

    def finish(self) -> list[Example]:
        return []


def build_row(row: Row) -> BuildOutcome:
    columns, texts = json.loads(row.columns), []
    for column in (config["question"], config["answer"]):
        if not isinstance(columns.get(column), str):
            return BuildOutcome_BadRow(f"no text in column `{column}`")
        texts.append(columns[column].strip())
    prompt, completion = Prompt_Text(f"Q: {texts[0]}\nA:"), Answer_Text(f" {texts[1]}")
    content = Content_PromptCompletion(PromptCompletion(prompt, completion))
    return BuildOutcome_Examples([Example(row.id, content, "{}")])
