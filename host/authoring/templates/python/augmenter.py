from wit_world.exports.augment import Augmented, Derived, Fate_Drop, Fate_Keep
from wit_world.imports.types import (
    Answer_Text, Content_PromptCompletion, Example, Prompt_Text, PromptCompletion,
)


class Augment(exports.Augment):
    def augment(self, examples: list[Example]) -> list[Augmented]:
        return [augment_one(it) for it in examples]


def augment_one(example: Example) -> Augmented:
    content = example.content
    if not (isinstance(content, Content_PromptCompletion) and isinstance(content.value.prompt, Prompt_Text)):
        return Augmented(Fate_Keep(), [])
    asked, answer = content.value.prompt.value, content.value.completion
    if not (isinstance(answer, Answer_Text) and answer.value.strip()):
        return Augmented(Fate_Drop("an empty answer"), [])
    if len(answer.value.split()) > config["words"]:
        return Augmented(Fate_Keep(), [])
    prompt = Prompt_Text(f"Answer in at most {config['words']} words. {asked}")
    derived = Example(example.row, Content_PromptCompletion(PromptCompletion(prompt, answer)), example.columns)
    return Augmented(Fate_Keep(), [Derived(derived, "short-answer")])
