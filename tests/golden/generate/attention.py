"""Causal attention of packed sequences, value and gradient, by torch's autograd in float64 on inputs that f32 holds.

Written with torch 2.15, transformers 5.24:
    python tests/golden/generate/attention.py
Writes tests/golden/attention.safetensors. Of each case:
    <case>.bounds [sequences + 1], <case>.window [1] (0: none), <case>.heads [2] (of queries, of keys): i32
    <case>.softcap [1] (0: none)
    <case>.qkv [T, (heads + 2 kv_heads) * head_dim], <case>.cos, <case>.sin [T, pairs]: the first 2 * pairs values of a head
    are rotated
    <case>.up [T, heads * head_dim] (what the output's gradient is)
    <case>.plain.out, <case>.plain.grad.qkv: not rotated; <case>.rotated.out, <case>.rotated.grad.qkv
Who sees whom is said by transformers' own mask functions: causal or sliding window, and packed sequences. With a cap the
formula is written out, since transformers' casts weights to f32; that of Gemma 2 must agree with it.
"""
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.masking_utils import (and_masks, causal_mask_function, packed_sequence_mask_function,
                                        sliding_window_causal_mask_function)
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb as apply_partial_rotary_pos_emb

TARGET = Path(__file__).resolve().parents[1] / "attention.safetensors"
# Heads, heads of keys, head_dim, bounds, window, softcap, pairs that are rotated (0: all). New ones last: inputs are drawn in this order.
CASES = {
    "packed": (3, 1, 8, [0, 33, 33, 34, 70], 0, 0, 0),
    "window": (2, 2, 6, [0, 70], 9, 0, 0),
    "packed_window": (4, 2, 4, [0, 41, 60, 75], 33, 0, 0),
    "long": (1, 1, 4, [0, 300], 0, 0, 0),
    "long_window": (3, 1, 2, [0, 10, 310], 270, 0, 0),
    "capped": (4, 2, 8, [0, 33, 70], 0, 1.5, 0),
    "capped_window": (3, 1, 6, [0, 20, 75], 9, 0.5, 0),
    "capped_long": (1, 1, 4, [0, 300], 0, 50.0, 0),
    "partial": (3, 1, 10, [0, 31, 33], 0, 0, 2),
    "capped_partial": (2, 2, 8, [0, 20, 60], 12, 2.5, 3),
}


def mask(bounds, window):
    sequence = torch.cat([torch.full((last - first,), index) for index, (first, last) in
                          enumerate(zip(bounds, bounds[1:]))])[None]
    order = sliding_window_causal_mask_function(window) if window else causal_mask_function
    seen = and_masks(order, packed_sequence_mask_function(sequence))
    tokens = torch.arange(bounds[-1])
    return seen(0, 0, tokens[:, None], tokens[None, :])


def capped_attention(q, k, v, seen, softcap):
    groups, scaling = q.shape[1] // k.shape[1], q.shape[-1] ** -0.5
    keys, values = (it.repeat_interleave(groups, 1) for it in (k, v))
    scores = softcap * torch.tanh(q @ keys.transpose(2, 3) * scaling / softcap)
    mixed = torch.where(seen, scores, -torch.inf).softmax(-1) @ values
    module = SimpleNamespace(num_key_value_groups=groups, training=False, head_dim=q.shape[-1])
    added = torch.where(seen, 0.0, -torch.inf).double()[None, None]
    theirs, _ = eager_attention_forward(module, q, k, v, added, scaling=scaling, softcap=softcap)
    assert torch.allclose(theirs.transpose(1, 2), mixed, rtol=0, atol=1e-5)
    return mixed


def attend(qkv, tables, heads, kv_heads, head_dim, seen, softcap):
    q, k, v = (it.unflatten(-1, (-1, head_dim)).transpose(0, 1)[None]
               for it in qkv.split([heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], -1))
    if tables:
        # transformers' tables have equal halves.
        rotate = apply_rotary_pos_emb if 2 * tables[0].shape[-1] == head_dim else apply_partial_rotary_pos_emb
        q, k = rotate(q, k, *(torch.cat([it, it], -1)[None] for it in tables))
    if softcap:
        return capped_attention(q, k, v, seen, softcap)[0].transpose(0, 1).flatten(1)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    return mixed[0].transpose(0, 1).flatten(1)


def case(heads, kv_heads, head_dim, bounds, window, softcap, pairs):
    tokens, whole = bounds[-1], lambda *it: torch.tensor(it, dtype=torch.int32)
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    angles = torch.randn(tokens, pairs or head_dim // 2) * 3
    found = {"bounds": whole(*bounds), "window": whole(window), "heads": whole(heads, kv_heads),
             "softcap": torch.tensor([softcap], dtype=torch.float32),
             "qkv": qkv, "cos": angles.cos(), "sin": angles.sin(), "up": torch.randn(tokens, heads * head_dim)}
    for name, tables in {"plain": None, "rotated": [found["cos"].double(), found["sin"].double()]}.items():
        leaf = qkv.double().requires_grad_()
        output = attend(leaf, tables, heads, kv_heads, head_dim, mask(bounds, window), softcap)
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
