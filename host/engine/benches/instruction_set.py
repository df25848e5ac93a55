"""Makes an instruction set with rows as long as real ones: conversations of one or several exchanges, as JSONL.

    python host/engine/benches/instruction_set.py FILE [--rows 256] [--seed 0]

The Python that runs this needs PyYAML and `chatterbot-corpus` (PyPI, BSD: questions with their answers, by topic); nothing
of it is in the repository. Exchanges of one topic follow each other until the row has the length that was drawn for it:
log-normal, of 55 words in the median, so that rows take some 40 to 550 tokens, the upper tenth several times the median,
as in collections of instructions. Same seed and package, same bytes.
"""
import argparse
import json
import math
import pathlib
import random
from importlib import resources

MEDIAN_WORDS, SPREAD, SHORTEST, LONGEST = 55, 0.75, 5, 170


def exchanges() -> dict[str, list[tuple[str, str]]]:
    """Questions with their answers by topic, in English."""
    import yaml

    topics = {}
    folder = resources.files("chatterbot_corpus") / "data" / "english"
    for file in sorted(folder.iterdir(), key=lambda it: it.name):
        if not file.name.endswith(".yml"):
            continue
        told = yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
        # Longer conversations count as pairs too: each line answers the one before it.
        pairs = {(str(asked).strip(), str(answer).strip()) for it in told for asked, answer in zip(it[::2], it[1::2])}
        topics[file.name.removesuffix(".yml")] = sorted(it for it in pairs if all(it))
    return {topic: pairs for topic, pairs in topics.items() if len(pairs) >= 10}


def rows(count: int, seed: int) -> list[dict]:
    """`count` rows with `messages`."""
    rng = random.Random(seed)
    topics = exchanges()
    names, found = sorted(topics), []
    for _ in range(count):
        wanted = min(max(rng.lognormvariate(math.log(MEDIAN_WORDS), SPREAD), SHORTEST), LONGEST)
        pairs = topics[rng.choice(names)]
        messages, words = [], 0
        for asked, answer in rng.sample(pairs, len(pairs)):
            length = len(asked.split()) + len(answer.split())
            if messages and words + length / 2 > wanted:
                break
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            words += length
        found.append({"messages": messages})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    made = rows(arguments.rows, arguments.seed)
    arguments.file.write_text("".join(json.dumps(it, ensure_ascii=False) + "\n" for it in made), encoding="utf-8")


if __name__ == "__main__":
    main()
