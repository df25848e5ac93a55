"""Goldens of three rewards: `tests/golden/rewards/{format,overlong,repetition}.json`.

Oracle: TRL 1.16.0, `trl.rewards`. TRL counts token ids; here each word of the lower-cased text is an id.
Command: python tests/golden/generate/rewards.py
"""

import json
from pathlib import Path

from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment, think_format_reward

FOLDER = Path(__file__).resolve().parent.parent / "rewards"

TEXTS = [
    "",
    "one",
    "one two",
    "a b c d",
    "a b c a b c",
    "A b a B a b a b",
    "the cat sat on the mat and the cat sat on the mat again",
    "yes " * 20,
]


# TRL looks at the text as it stands and lets `</think>` stand twice; `format-tags` leaves out spaces around an answer and
# does not. Such texts are not here.
LAYOUTS = [
    "<think>\nreason\n</think>\nanswer",
    "<think>reason</think>",
    "<think></think>answer",
    "<think>a\n\nb</think>\n\n<answer>c</answer>",
    "<think>reason",
    "reason</think>answer",
    "<think><think>reason</think>answer",
    "<think>reason</think><think>answer",
    "First: <think>reason</think>answer",
    "</think><think>",
    "<THINK>reason</THINK>",
    "思考：<think>一</think>二",
    "<think>一加一\n等于二</think>二",
    "",
]


def ids(text):
    names = {}
    return [names.setdefault(word, len(names)) for word in text.lower().split()]


def overlong():
    reward = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    lengths = [0, 1, 79, 80, 81, 90, 99, 100, 101, 5000]
    rewards = reward([[1] * length for length in lengths])
    return [{"length": length, "reward": value} for length, value in zip(lengths, rewards)]


def repetition():
    cases = []
    for ngram_size, max_penalty in [(1, -1.0), (2, -0.5), (3, -1.0), (4, -2.0)]:
        reward = get_repetition_penalty_reward(ngram_size=ngram_size, max_penalty=max_penalty)
        for text, value in zip(TEXTS, reward([ids(text) for text in TEXTS])):
            cases.append({"ngram_size": ngram_size, "max_penalty": max_penalty, "text": text, "reward": value})
    return cases


def layout():
    rewards = think_format_reward([[{"content": text}] for text in LAYOUTS])
    return [{"text": text, "reward": value} for text, value in zip(LAYOUTS, rewards)]


for name, cases in [("format", layout()), ("overlong", overlong()), ("repetition", repetition())]:
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"oracle": "trl 1.16.0", "cases": cases}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n")
