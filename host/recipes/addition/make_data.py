#!/usr/bin/env python3
"""Makes the sums: `train.jsonl` and `held_out.jsonl` (300 and 64 questions), larger ones to train on beside them
(`large_train.jsonl`, 148), and the same with two sums worked out before them (`two_shot_...`), beside this file.

Numbers are from 1 to 20, larger ones from 100 to 999, and no sum of the held-out questions occurs in training. Same seed, same
bytes; standard library only.

    python3 make_data.py            write the files
    python3 make_data.py --check    exit code 1 where they differ from what would be written
"""
import json
import random
import sys
from pathlib import Path

SEED = 20250530
TRAIN_ROWS, HELD_OUT_ROWS, LARGE_ROWS = 300, 64, 148

PROMPTS = {"": "Q: What is {a} + {b}?\nA:", "two_shot_": "2 + 3 = 5\n11 + 4 = 15\n{a} + {b} ="}


def files():
    rng = random.Random(SEED)
    sums = [(a, b) for a in range(1, 21) for b in range(1, 21)]
    rng.shuffle(sums)
    parts = {"train": sums[:TRAIN_ROWS], "held_out": sums[TRAIN_ROWS : TRAIN_ROWS + HELD_OUT_ROWS]}
    parts["large_train"] = [(rng.randint(100, 999), rng.randint(100, 999)) for _ in range(LARGE_ROWS)]
    row = lambda prompt, a, b: json.dumps({"prompt": prompt.format(a=a, b=b), "answer": a + b}) + "\n"
    return {
        f"{kind}{part}.jsonl": "".join(row(prompt, a, b) for a, b in of_part)
        for kind, prompt in PROMPTS.items()
        for part, of_part in parts.items()
    }


def main():
    here = Path(__file__).resolve().parent
    for name, text in files().items():
        path = here / name
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not what this script makes")


if __name__ == "__main__":
    main()
