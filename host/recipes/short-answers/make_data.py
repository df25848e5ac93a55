#!/usr/bin/env python3
"""Makes the preference data: `train.jsonl` (112 pairs) and `held_out.jsonl` (48 pairs), beside this file.

Each pair asks for a capital; the answer that is the city alone is preferred to a sentence about it. No country of the
held-out pairs occurs in training. Same seed, same bytes; standard library only.

    python3 make_data.py            write the files
    python3 make_data.py --check    exit code 1 where they differ from what would be written
"""
import json
import random
import sys
from pathlib import Path

SEED = 20250412
HELD_OUT_COUNTRIES = 12

CAPITALS = """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid Japan:Tokyo China:Beijing Egypt:Cairo Russia:Moscow India:Delhi
Norway:Oslo Sweden:Stockholm Finland:Helsinki Poland:Warsaw Greece:Athens Austria:Vienna Hungary:Budapest
Portugal:Lisbon Ireland:Dublin Denmark:Copenhagen Turkey:Ankara Iran:Tehran Iraq:Baghdad Cuba:Havana Peru:Lima
Chile:Santiago Canada:Ottawa Kenya:Nairobi Thailand:Bangkok Vietnam:Hanoi Belgium:Brussels Ukraine:Kyiv
Romania:Bucharest Bulgaria:Sofia Serbia:Belgrade Syria:Damascus Jordan:Amman Nepal:Kathmandu Ghana:Accra
Colombia:Bogota Tunisia:Tunis
""".split()

QUESTIONS = [
    "What is the capital of {country}?",
    "Which city is the capital of {country}?",
    "Tell me the capital city of {country}.",
    "I need the name of the capital of {country}.",
]
LONG = [
    "The capital of {country} is {city}, which is one of the largest and most beautiful cities in the country.",
    "The capital city of {country} is {city}. It is known for its rich history, culture and architecture.",
    "{city} is the capital of {country}, and many travellers visit its museums, markets and parks every year.",
]


def pairs(rng, places):
    for place in places:
        country, city = place.split(":")
        for question in QUESTIONS:
            yield {
                "prompt": f"Question: {question.format(country=country)}\nAnswer:",
                "chosen": f" {city}.",
                "rejected": " " + rng.choice(LONG).format(country=country, city=city),
            }


def files():
    rng = random.Random(SEED)
    places = rng.sample(CAPITALS, len(CAPITALS))
    held_out = list(pairs(rng, places[:HELD_OUT_COUNTRIES]))
    train = list(pairs(rng, places[HELD_OUT_COUNTRIES:]))
    made = [("held_out.jsonl", held_out), ("train.jsonl", train)]
    return {name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in made}


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
