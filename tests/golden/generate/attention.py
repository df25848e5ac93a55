"""Causal attention of packed sequences, value and gradient, by torch's autograd in float64 on inputs that f32 holds.

Written with torch 2.15, transformers 5.23:
    python tests/golden/generate/attention.py
Writes tests/golden/attention.safetensors. Of each case:
    <case>.bounds [sequences + 1], <case>.window [1] (0: none), <case>.heads [2] (of queries, of keys): i32
    <case>.qkv [T, (heads + 2 kv_heads) * head_dim], <case>.cos, <case>.sin [T, head_dim / 2]
    <case>.up [T, heads * head_dim] (what the output's gradient is)
    <case>.plain.out, <case>.plain.grad.qkv: not rotated; <case>.rotated.out, <case>.rotated.grad.qkv
Who sees whom is said by transformers' own mask functions: causal or sliding window, and packed sequences.
"""
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.masking_utils import (and_masks, causal_mask_function, packed_sequence_mask_function,
                                        sliding_window_causal_mask_function)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

TARGET = Path(__file__).resolve().parents[1] / "attention.safetensors"
# Heads, heads of keys, head_dim, bounds, window.
CASES = {
    "packed": (3, 1, 8, [0, 33, 33, 34, 70], 0),
    "window": (2, 2, 6, [0, 70], 9),
    "packed_window": (4, 2, 4, [0, 41, 60, 75], 33),
    "long": (1, 1, 4, [0, 300], 0),
    "long_window": (3, 1, 2, [0, 10, 310], 270),
}


def mask(bounds, window):
    sequence = torch.cat([torch.full((last - first,), index) for index, (first, last) in
                          enumerate(zip(bounds, bounds[1:]))])[None]
    order = sliding_window_causal_mask_function(window) if window else causal_mask_function
    seen = and_masks(order, packed_sequence_mask_function(sequence))
    tokens = torch.arange(bounds[-1])
    return seen(0, 0, tokens[:, None], tokens[None, :])


def attend(qkv, tables, heads, kv_heads, head_dim, seen):
    q, k, v = (it.unflatten(-1, (-1, head_dim)).transpose(0, 1)[None]
               for it in qkv.split([heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], -1))
    if tables:
        # transformers' tables have equal halves.
        q, k = apply_rotary_pos_emb(q, k, *(torch.cat([it, it], -1)[None] for it in tables))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    return mixed[0].transpose(0, 1).flatten(1)


def case(heads, kv_heads, head_dim, bounds, window):
    tokens, whole = bounds[-1], lambda *it: torch.tensor(it, dtype=torch.int32)
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    angles = torch.randn(tokens, head_dim // 2) * 3
    found = {"bounds": whole(*bounds), "window": whole(window), "heads": whole(heads, kv_heads),
             "qkv": qkv, "cos": angles.cos(), "sin": angles.sin(), "up": torch.randn(tokens, heads * head_dim)}
    for name, tables in {"plain": None, "rotated": [found["cos"].double(), found["sin"].double()]}.items():
        leaf = qkv.double().requires_grad_()
        output = attend(leaf, tables, heads, kv_heads, head_dim, mask(bounds, window))
        output.backward(found["up"].double())
        found |= {f"{name}.out": output.detach().float(), f"{name}.grad.qkv": leaf.grad.float()}
    return found


def main():
    torch.manual_seed(0)
    tensors = {f"{name}.{key}": it.contiguous() for name, sizes in CASES.items() for key, it in case(*sizes).items()}
    save_file(tensors, TARGET)
    print(TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
