"""Checks GGUF files that fthost wrote with the programs that others read them with. Not a generator: it writes nothing.

    cargo build --release
    python tests/golden/generate/check_gguf.py target/release/fthost [SMOLLM2_FOLDER]
For each family (as gguf_families.py has them, with a byte-level tokenizer of gguf_tokenizers.py beside it):
- the package gguf reads the file: metadata, and tensors whose types and values are those of its own `quants.quantize`;
- transformers reads it (`from_pretrained(gguf_file=...)`, where it knows the architecture): its logits are those of the folder
  within 1e-5, and, mixtures apart, within 0.1 of the largest for Q8_0;
- transformers' tokenizer of the file gives the folder's ids where both know the kind.
With llama-cpp-python installed, a folder of a real model (SmolLM2) is written as f16, and llama.cpp's greedy tokens are those
of transformers on the folder.
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
    folder = place / case
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
    print(told, flush=True)


def check_llama_cpp(fthost, folder, place):
    """llama.cpp itself, on a real model."""
    try:
        import llama_cpp
    except ImportError:
        print("llama-cpp-python is not installed: not compared with llama.cpp")
        return
    out = place / "real.gguf"
    subprocess.run([fthost, "model", "convert", folder, "--out", out, "--dtype", "f16"], check=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    llama = llama_cpp.Llama(str(out), n_ctx=256, verbose=False)
    for text in ["The capital of France is", "Once upon a time, 12345", "def fibonacci(n):\n"]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert llama.tokenize(text.encode(), add_bos=False, special=True) == ids, text
        expected = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids):].tolist()
        found = []
        for token in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            found.append(token)
            if len(found) == len(expected):
                break
        print(f"{text!r}: llama.cpp and transformers agree on {sum(a == b for a, b in zip(found, expected))}"
              f" of {len(expected)} greedy tokens", flush=True)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    fthost = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            check(fthost, case, Path(place))
        if len(sys.argv) > 2:
            check_llama_cpp(fthost, Path(sys.argv[2]), Path(place))


main()
