"""Golden of the augmenter `near-duplicates`: `tests/golden/minhash/minhash.json`.

Oracle: exact Jaccard indices of word 3-shingles (Han characters are words), the estimates of PyPI's `datasketch` 2.0.0
with 512 permutations, and its choice of bands and rows.
Command: python tests/golden/generate/minhash.py
"""

import json
import random
from pathlib import Path

import datasketch
from datasketch import MinHash
from datasketch.lsh import _optimal_param

TARGET = Path(__file__).resolve().parent.parent / "minhash" / "minhash.json"
SHINGLE, PERMUTATIONS = 3, 512


def tokens(text):
    """Python's `str.split`, with each Han character by itself."""
    spaced = "".join(f" {it} " if "\u4e00" <= it <= "\u9fff" else it for it in text.lower())
    return spaced.split()


def shingles(text):
    words = tokens(text)
    return {tuple(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)}


def signature(text):
    made = MinHash(num_perm=PERMUTATIONS)
    for it in shingles(text):
        made.update("\x00".join(it).encode())
    return made


draw = random.Random(7)
words = [f"word{it}" for it in range(400)]
han = [chr(it) for it in range(0x4E00, 0x4E00 + 400)]
cases = []
for vocabulary, sign in [(words, " "), (han, "")]:
    for changed in [0, 1, 3, 8, 20, 60, 120]:
        a = [draw.choice(vocabulary) for _ in range(150)]
        b = list(a)
        for at in draw.sample(range(150), changed):
            b[at] = draw.choice(vocabulary)
        a, b = sign.join(a), sign.join(b)
        one, other = shingles(a), shingles(b)
        exact = len(one & other) / len(one | other)
        cases.append({"a": a, "b": b, "exact": exact, "datasketch": signature(a).jaccard(signature(b))})

bands = []
for threshold in [0.5, 0.6, 0.7, 0.8, 0.9]:
    for permutations in [64, 128, 256]:
        b, r = _optimal_param(threshold, permutations, 0.5, 0.5)
        bands.append({"threshold": threshold, "permutations": permutations, "b": b, "r": r})

TARGET.parent.mkdir(exist_ok=True)
golden = {"oracle": f"datasketch {datasketch.__version__}", "shingle": SHINGLE, "cases": cases, "bands": bands}
TARGET.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
