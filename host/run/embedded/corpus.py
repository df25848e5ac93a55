"""The embedded model's rows and its tokenizer, from two packages and a generator: always the same ones.

    python corpus.py PACKAGES OUT

PACKAGES holds the unpacked wheels chatterbot-corpus 1.3.3 and randfacts 0.24.4; OUT gets chat.jsonl, facts.jsonl,
made.jsonl, held_out.jsonl and tokenizer.json. Written with tokenizers 0.23 and PyYAML 6. `make.sh` calls it.
"""
import json
import random
import sys
from pathlib import Path

import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 1024
# Questions of knowledge and everyday talk; topics in which a small model parrots opinions are left out.
TOPICS = ["ai", "botprofile", "computers", "conversations", "food", "greetings", "health", "history", "literature",
          "money", "science", "sports", "tech_support", "trivia"]
FACTS, HELD_OUT = 3000, 64
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
            "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
            "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Ireland": "Dublin", "Japan": "Tokyo",
            "China": "Beijing", "India": "New Delhi", "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima",
            "Chile": "Santiago", "Cuba": "Havana", "Canada": "Ottawa", "Russia": "Moscow", "Turkey": "Ankara"}
NAMES = ["Ana", "Ben", "Carla", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Leo", "Mina",
         "Nora", "Omar", "Petra", "Quinn", "Rosa", "Sami", "Tara", "Uma", "Victor", "Wanda", "Yusuf", "Zoe"]
THINGS = ["apple", "book", "chair", "drum", "eagle", "fish", "guitar", "hat", "island", "jar", "kite", "lamp",
          "map", "notebook", "orange", "pen", "quilt", "ring", "shoe", "table", "umbrella", "vase", "watch"]
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "grey"]


def chat(*turns):
    roles = ["user", "assistant"] * len(turns)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns)]}


def conversations(packages):
    rows = []
    for topic in TOPICS:
        text = (packages / "chatterbot_corpus/data/english" / f"{topic}.yml").read_text(encoding="utf-8")
        for turns in yaml.safe_load(text)["conversations"]:
            turns = [" ".join(str(turn).split()) for turn in turns]
            turns = turns[:len(turns) // 2 * 2]
            if turns and all(turns) and sum(map(len, turns)) < 600:
                rows.append(chat(*turns))
    return rows


def facts(packages, rng):
    lines = (packages / "randfacts/safe.txt").read_text(encoding="utf-8").splitlines()
    lines = sorted({line.strip() for line in lines if 20 < len(line) < 200 and line.isascii()})
    return [{"text": line} for line in rng.sample(lines, FACTS)]


def made(rng):
    rows = []
    for country, city in CAPITALS.items():
        rows.append(chat(f"What is the capital of {country}?", f"The capital of {country} is {city}."))
        rows.append(chat(f"{city} is the capital of which country?", f"{city} is the capital of {country}."))
        rows.append(chat(f"Which city is the capital of {country}?", f"{city}."))
    for a in range(10):
        for b in range(10):
            rows.append(chat(f"What is {a} + {b}?", str(a + b)))
    for _ in range(600):
        name, thing, colour, count = rng.choice(NAMES), rng.choice(THINGS), rng.choice(COLOURS), rng.randint(2, 99)
        record = {"owner": name, "item": thing, "colour": colour, "count": count}
        ask = f"Write as JSON: {name} owns {count} things of kind {thing}, all {colour}."
        rows.append(chat(ask, json.dumps(record)))
        rows.append(chat(f"Repeat after me: {colour} {thing}", f"{colour} {thing}"))
        rows.append(chat(f"My name is {name}.", f"Nice to meet you, {name}!"))
    for word in THINGS + COLOURS:
        rows.append(chat(f"Spell the word {word}.", "-".join(word)))
    # One of each: a row that is drawn twice would count twice.
    return list({json.dumps(row): row for row in rows}.values())


def tokenizer(texts):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)])
    trained.decoder = decoders.ByteLevel()
    trained.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL]))
    return trained


def main():
    packages, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(20)
    talk, told, generated = conversations(packages), facts(packages, rng), made(rng)
    held_out = []
    for rows, share in [(talk, 2), (told, 1), (generated, 1)]:
        rng.shuffle(rows)
        count = HELD_OUT * share // 4
        held_out += rows[:count]
        del rows[:count]
    parts = {"chat": talk, "facts": told, "made": generated, "held_out": held_out}
    for name, rows in parts.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [turn["content"] for name in ["chat", "facts", "made"] for row in parts[name]
             for turn in row.get("messages", [{"content": row.get("text")}])]
    tokenizer(texts).save(str(out / "tokenizer.json"))
    print({name: len(rows) for name, rows in parts.items()}, sum(map(len, texts)), "characters")


main()
