"""A tiny GGUF of every type of tensor, its weights as the gguf package dequantises them, and texts cut by rule.

Written with gguf 0.19, numpy 2, safetensors 0.8, regex:
    python tests/golden/generate/gguf_import.py
Writes into tests/golden/gguf: tiny.gguf (one block of Llama, random weights, a byte-level BPE vocabulary of a few
merges), tiny.safetensors (its weights dequantised and with the rows of queries and keys put back, under Hugging Face's
names), tiny_llama3.gguf (the same weights with Llama 3.2's rotary scaling, as llama.cpp stores it) and
pre_tokenizers.json (pieces of texts by the expressions of llama.cpp's `llama-vocab.cpp`, run by the Python module
regex: another engine than the one under test).
"""
import json
import unicodedata
from pathlib import Path

import gguf
import numpy as np
import regex
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1] / "gguf"
VOCAB, HIDDEN, WIDE, HEADS, KV_HEADS, HEAD = 288, 64, 96, 4, 2, 16

CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
GPT2 = rf"{CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)"
ANY_CASE = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Capitals end a word: llama.cpp's engine knows fewer classes, so these are the expressions of the models themselves, which
# `llama-vocab.cpp` quotes ("original regex from tokenizer.json").
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
SLASH = REST.replace(r"[\r\n]*", r"[\r\n/]*", 1)
RULES = {
    "gpt-2": [GPT2],
    "olmo": [GPT2],
    "dbrx": [rf"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"],
    "qwen35": [rf"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
               rf"|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "gpt-4o": [rf"{BEFORE}{UPPER}*{LOWER}+{ANY_CASE}?|{BEFORE}{UPPER}+{LOWER}*{ANY_CASE}?|\p{{N}}{{1,3}}|{SLASH}"],
    "tekken": [rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}|{SLASH}"],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [rf"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"],
    "qwen2": [rf"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}"],
}
NFC = {"qwen2", "qwen35", "olmo"}
TEXTS = [
    "In 2024 she'd paid 12345.67 \u20ac, and it WASN'T 1\u00bd hours  late!\r\n\r\n  \tIndented?  ",
    "\u0412\u0435\u0441\u043d\u0430 1999 \u2014 \u4f60\u597d\uff0c\u4e16\u754c123\u3002 \u0928\u092e\u0938\u094d\u0924\u0947 \u0967\u0968\u0969 caf\u00e9 cafe\u0301 \U0001f642\U0001f680",
    "{\"name\": \"\u0141ukasz\", \"age\": 30, \"tags\": [\"a_b\", 'c-d']}\n\nfor(i=0;i<10;i++){x+=i;}   end",
    "camelCase HTTPServer isn'tIt ΑΒγ \u01c5a \u0915\u094d\u0937\u0924\u094d\u0930 a\u0301b /usr//bin/\n/x 1234567",
]


def pieces(text, rules):
    """Each rule cuts what the ones before left; what a rule does not match stays a piece, as in llama.cpp."""
    cut = [text]
    for rule in rules:
        after = []
        for part in cut:
            end = 0
            for match in regex.finditer(rule, part):
                if match.start() > end:
                    after.append(part[end:match.start()])
                after.append(match.group())
                end = match.end()
            if end < len(part):
                after.append(part[end:])
        cut = after
    return cut


def bytes_to_unicode():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = [byte for byte in range(256) if byte not in plain]
    table = {byte: chr(byte) for byte in plain}
    table.update({byte: chr(256 + index) for index, byte in enumerate(extra)})
    return [table[byte] for byte in range(256)]


def vocabulary():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = ["t h", "th e", "\u0120 a", "i n", "in g", "1 2", "12 3", "\u0120 the", "e r", "h e", "o n", "r e"]
    tokens = special + bytes_to_unicode()
    tokens += [merge.replace(" ", "") for merge in merges]
    types = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    tokens.append("<tool>")
    types.append(gguf.TokenType.USER_DEFINED)
    while len(tokens) < VOCAB:
        types.append(gguf.TokenType.UNUSED)
        tokens.append(f"[PAD{len(tokens)}]")
    return tokens, types, merges


def permute(weight, heads):
    """As llama.cpp's converter: the halves of a head become neighbouring pairs."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def unpermute(weight, heads):
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(theta):
    """What llama.cpp's converter stores of Llama 3.2's scaling (`LlamaModel.generate_extra_tensors`)."""
    factor, low, high, original = 32.0, 1.0, 4.0, 8192
    factors = []
    for frequency in 1.0 / theta ** (np.arange(0, HEAD, 2, dtype=np.float32) / HEAD):
        wavelength = 2 * np.pi / frequency
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def main():
    ROOT.mkdir(exist_ok=True)
    write("tiny", llama3=False)
    write("tiny_llama3", llama3=True)
    cut = {name: [pieces(unicodedata.normalize("NFC", text) if name in NFC else text, rules) for text in TEXTS]
           for name, rules in RULES.items()}
    (ROOT / "pre_tokenizers.json").write_text(
        json.dumps({"texts": TEXTS, "pieces": cut}, ensure_ascii=True, indent=1) + "\n")


def write(name, llama3):
    rng = np.random.default_rng(7)
    theta = 500000.0 if llama3 else 10000.0
    writer = gguf.GGUFWriter(ROOT / f"{name}.gguf", "llama")
    writer.add_name("Tiny")
    writer.add_context_length(131072 if llama3 else 128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(theta)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(VOCAB)
    tokens, types, merges = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if llama3 else "smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
                             "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    block = "model.layers.0."
    expected = {}
    if llama3:
        writer.add_tensor("rope_freqs.weight", llama3_factors(theta))
    for source, target, shape, stored, heads in [
        ("token_embd", "model.embed_tokens", (VOCAB, HIDDEN), Q.Q8_0, None),
        ("blk.0.attn_norm", block + "input_layernorm", (HIDDEN,), Q.F32, None),
        ("blk.0.ffn_norm", block + "post_attention_layernorm", (HIDDEN,), Q.F32, None),
        ("blk.0.attn_q", block + "self_attn.q_proj", (HEADS * HEAD, HIDDEN), Q.Q4_0, HEADS),
        ("blk.0.attn_k", block + "self_attn.k_proj", (KV_HEADS * HEAD, HIDDEN), Q.Q4_1, KV_HEADS),
        ("blk.0.attn_v", block + "self_attn.v_proj", (KV_HEADS * HEAD, HIDDEN), Q.Q5_0, None),
        ("blk.0.attn_output", block + "self_attn.o_proj", (HIDDEN, HEADS * HEAD), Q.Q5_1, None),
        ("blk.0.ffn_gate", block + "mlp.gate_proj", (WIDE, HIDDEN), Q.F16, None),
        ("blk.0.ffn_up", block + "mlp.up_proj", (WIDE, HIDDEN), Q.BF16, None),
        ("blk.0.ffn_down", block + "mlp.down_proj", (HIDDEN, WIDE), Q.Q8_0, None),
        ("output_norm", "model.norm", (HIDDEN,), Q.F32, None),
    ]:
        weight = rng.normal(size=shape).astype(np.float32)
        if heads:
            weight = permute(weight, heads)
        data = gguf.quants.quantize(weight, stored)
        writer.add_tensor(source + ".weight", data, raw_dtype=stored)
        values = gguf.quants.dequantize(data, stored).reshape(shape)
        expected[target + ".weight"] = np.ascontiguousarray(unpermute(values, heads) if heads else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not llama3:
        save_file(expected, ROOT / "tiny.safetensors", {"format": "np"})


main()
