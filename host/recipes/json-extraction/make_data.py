#!/usr/bin/env python3
"""Makes the JSON extraction data: `train.jsonl` (400 rows) and `held_out.jsonl` (32 rows), beside this file.

Each row has a sentence about a person (`text`) and what it says (`fields`). No name and no city of the held-out rows
occurs in training, so what is measured is reading, not remembering. Same seed, same bytes; standard library only.

    python3 make_data.py            write the files
    python3 make_data.py --check    exit code 1 where they differ from what would be written
"""
import json
import random
import sys
from pathlib import Path

SEED = 20250117
TRAIN_ROWS, HELD_OUT_ROWS = 400, 32

NAMES = (
    "Maria John Wei Fatima Olga Pedro Amara Lars Chloe Ravi Yuki Omar Elena Sven Nadia Tom Ingrid Kofi Lucia Ahmed "
    "Grace Mateo Priya Jonas Leila Hugo Sofia Emeka Anna Diego Mei Viktor Zara Paul Irina Samuel Noor Felix Carmen Ivan"
).split()
CITIES = (
    "Oslo Lima Paris Cairo Tokyo Berlin Lagos Delhi Madrid Toronto Vienna Dublin Seoul Athens Prague Sydney Boston "
    "Havana Lisbon Manila Warsaw Nairobi Geneva Quito Helsinki Accra Zurich Bogota Munich Hanoi"
).split()
JOBS = (
    "teacher baker pilot nurse farmer lawyer singer chemist driver painter plumber editor surgeon carpenter waiter "
    "librarian"
).split()
HELD_OUT_NAMES, HELD_OUT_CITIES = 12, 10

TEMPLATES = [
    "{name} is a {age}-year-old {job} from {city}.",
    "{name}, who works as a {job} in {city}, is {age}.",
    "Living in {city}, the {job} {name} just turned {age}.",
    "At {age}, {name} is still a {job} and lives in {city}.",
    "Meet {name}: {age} years old, {job}, at home in {city}.",
    "The {job} {name} moved to {city} at the age of {age}.",
]


def rows(rng, names, cities, count):
    seen = set()
    while len(seen) < count:
        fields = {
            "name": rng.choice(names),
            "age": rng.randint(18, 80),
            "job": rng.choice(JOBS),
            "city": rng.choice(cities),
        }
        text = rng.choice(TEMPLATES).format(**fields)
        if text not in seen:
            seen.add(text)
            yield {"text": text, "fields": fields}


def files():
    rng = random.Random(SEED)
    names, cities = rng.sample(NAMES, len(NAMES)), rng.sample(CITIES, len(CITIES))
    held_out = rows(rng, names[:HELD_OUT_NAMES], cities[:HELD_OUT_CITIES], HELD_OUT_ROWS)
    train = rows(rng, names[HELD_OUT_NAMES:], cities[HELD_OUT_CITIES:], TRAIN_ROWS)
    # Made in this order: both draw from one generator.
    made = [("held_out.jsonl", list(held_out)), ("train.jsonl", list(train))]
    return {name: "".join(json.dumps(row) + "\n" for row in all_rows) for name, all_rows in made}


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
