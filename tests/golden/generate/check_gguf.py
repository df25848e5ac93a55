"""Checks GGUF files that fthost wrote with the programs that others read them with. Not a generator: it writes nothing.

    cargo build --release
    python tests/golden/generate/check_gguf.py target/release/fthost [PYTHON [FOLDER]]
For each family (as gguf_families.py has them, with a small byte-level tokenizer beside it):
- the package gguf reads the file, and tensors of every type hold what its own `quants.quantize` makes of the f32 ones;
- transformers reads it (`from_pretrained(gguf_file=...)`, where it knows the architecture): its logits are those of the folder
  within 1e-5, and, mixtures apart, within 0.1 of the largest for Q8_0; its tokenizer of the file gives the ids, too;
- llama.cpp reads it, where PYTHON is one that has xllamacpp: log-probabilities and next 8 tokens beside transformers'. It has
  no windows but Gemma's, no betas of YaRN, LongRoPE's long factors for any text, and no bias behind Qwen 3's attention.
FOLDER is a real model's (SmolLM2): llama.cpp's ids of texts and next 24 tokens are compared with transformers'.
Seen with gguf 0.19, torch 2.15, transformers 5.24, xllamacpp 2026.10.11549.
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

GOLDEN = Path(__file__).resolve().parents[1]
CASES = json.loads((GOLDEN / "gguf/families/cases.json").read_text())
# Architectures that transformers 5.24 reads.
KNOWN = {"mistral", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "phi3_long", "gpt2"}
HOW = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")


def folder_of(case, place):
    """The folder of a case as a GGUF can say it, its embedding made larger for the tokenizer's tokens."""
    of, changes = CASES[case]["folder"], CASES[case]["changes"]
    # llama.cpp takes what is named Phi 3 for that, special tokens included.
    folder = place / case.replace("phi3", "three")
    shutil.copytree(GOLDEN / of, folder)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    if "architectures" in changes:
        config["model_type"] = "llama"
    (folder / "config.json").write_text(json.dumps(config))
    size = config["vocab_size"]
    letters = [chr(ord("a") + i) for i in range(26)]
    vocab = {"<end>": 0, **{it: i + 1 for i, it in enumerate(letters)}, "ab": 27, "\u0120": 28}
    assert len(vocab) <= size
    tokenizer = {"version": "1.0", "added_tokens": [
        {"id": 0, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}],
        "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "chat_template": "{{ messages }}"}))
    return folder


def config_of(folder):
    said = json.loads((folder / "config.json").read_text())
    name = said["architectures"][0].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    made = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    return made.from_dict({key: it for key, it in said.items() if key != "model_type"})


def check(fthost, case, place):
    folder = folder_of(case, place)
    convert = [fthost, "model", "convert", folder, "--out"]
    read = {}
    for stored in ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"]:
        out = place / f"{case}.{stored}.gguf"
        kind = ["--dtype", stored] if stored[0] in "fb" else ["--blocks", stored]
        subprocess.run([*convert, out, *kind], check=True, stdout=subprocess.DEVNULL)
        read[stored] = {it.name: it for it in gguf.GGUFReader(out).tensors}
    exact = {name: np.array(it.data) for name, it in read["f32"].items()}
    for stored, tensors in read.items():
        assert tensors.keys() == exact.keys()
        for name, it in tensors.items():
            assert np.array_equal(np.array(it.data), gguf.quants.quantize(exact[name], it.tensor_type)), (stored, name)
    kinds = {stored: sorted({it.tensor_type.name for it in tensors.values()}) for stored, tensors in read.items()}
    told = f"{case}: {kinds['q4_0']}"
    if case in KNOWN:
        model = getattr(transformers, config_of(folder).architectures[0])
        ids = torch.arange(3, 23)[None]
        with torch.no_grad():
            expected = model.from_pretrained(folder, config=config_of(folder), **HOW).eval()(ids).logits
            for stored, most in [("f32", 1e-5), ("q8_0", 0.1)]:
                found = model.from_pretrained(place, gguf_file=f"{case}.{stored}.gguf", config=config_of(folder), **HOW)
                off = ((found.eval()(ids).logits - expected).abs().max() / expected.abs().max()).item()
                told += f", {stored} off by {off:.2g}"
                # A rounded weight may send a token to another expert.
                assert off < most or "moe" in case and stored != "f32", (case, stored, off)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=f"{case}.f32.gguf")
            assert tokenizer("ab <end>ba", add_special_tokens=False).input_ids == [27, 28, 0, 2, 1], case
            assert tokenizer.chat_template == "{{ messages }}"
            told += ", tokenizer"
        except (ValueError, ImportError, KeyError) as error:
            told += f", no tokenizer ({type(error).__name__})"
    if len(sys.argv) > 2:
        model = getattr(transformers, config_of(folder).architectures[0])
        model = model.from_pretrained(folder, config=config_of(folder), **HOW).eval()
        prompts = [list(range(3, 15)), [40, 7, 33, 9, 21]]
        try:
            found = llama_cpp(place / f"{case}.f32.gguf", prompts, 8)
        except RuntimeError as error:
            print(f"{told}, llama.cpp: {error}", flush=True)
            return
        # The ends of a text and of a turn, which llama.cpp is asked to ignore.
        expected = [next_tokens(model, it, 8, [0, 2]) for it in prompts]
        same = sum(a == b for it, to in zip(found, expected) for a, b in zip(it["tokens"], to))
        off = max(distance(model, ids, it["first"]) for ids, it in zip(prompts, found))
        told += f", llama.cpp off by {off:.2g}, {same} of 16 tokens"
    print(told, flush=True)


def llama_cpp(file, prompts, count):
    """What llama.cpp makes of prompts."""
    program = Path(__file__).with_name("llama_cpp_tokens.py")
    asked = json.dumps({"file": str(file), "prompts": prompts, "count": count})
    told = subprocess.run([sys.argv[2], program], input=asked.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if told.returncode != 0:
        lines = [it for it in told.stderr.decode().splitlines() if "error loading model" in it]
        raise RuntimeError(lines[0].partition("error loading model: ")[2] if lines else told.stderr.decode()[-2000:])
    return json.loads(told.stdout)


def distance(model, ids, found):
    """Of the log-probabilities of a next token, those of tokens that are likely enough to be told."""
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    return max(abs(expected[int(it)].item() - value) for it, value in found.items() if value > -20)


def next_tokens(model, ids, count, never):
    """The likeliest, one after the other, without the tokens that end a text."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        logits[never] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids[-count:]


def check_real(fthost, folder, place):
    """llama.cpp on a real model."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = ["The capital of France is", "Once upon a time, 12345", "def fibonacci(n):\n", "\u041c\u043e\u0441\u043a\u0432\u0430 \u2014",
             "<|im_start|>user\nHow many legs has a spider?<|im_end|>\n<|im_start|>assistant\n"]
    ends = [tokenizer.convert_tokens_to_ids(it) for it in ["<|im_end|>", "<|endoftext|>"]]
    for stored in [["--dtype", "f32"], ["--dtype", "f16"], ["--blocks", "q8_0"]]:
        out = place / f"real.{stored[1]}.gguf"
        subprocess.run([fthost, "model", "convert", folder, "--out", out, *stored], check=True, stdout=subprocess.DEVNULL)
        for text, found in zip(texts, llama_cpp(out, texts, 24)):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            expected = next_tokens(model, ids, 24, ends)
            same = next((i for i, (a, b) in enumerate(zip(found["tokens"], expected)) if a != b), len(expected))
            print(f"{stored[1]} {text[:24]!r}: ids {'equal' if found['ids'] == ids else 'DIFFER'}, the first {same} of"
                  f" {len(expected)} tokens equal", flush=True)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    fthost = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            check(fthost, case, Path(place))
        if len(sys.argv) > 3:
            check_real(fthost, Path(sys.argv[3]), Path(place))


main()
