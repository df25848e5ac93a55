"""AdamW with clipping and AdamW with moments in 8-bit blocks, step by step.

Written with torch 2.15 and bitsandbytes 0.50:
    python tests/golden/generate/adamw.py
Writes tests/golden/adamw.safetensors:
    map.signed, map.unsigned [256]: `create_dynamic_map`
    quantize.<signed|unsigned>.{values [N], codes [N] (u8), absmax}: `quantize_blockwise`, given float64 so that it takes
        its plain path, the nearest code; for float32 its CPU library looks codes up in a coarser table
    f32.{matrix, vector}.<step>, f32.{matrix, vector}.grad.<step>, f32.norm.<step>: torch.optim.AdamW in float64 with
        clip_grad_norm_ to 1.0; the matrix decays, the vector does not; <step> 0 is the beginning
    blocks.value.<step>, blocks.grad.<step>, blocks.{first, second}.{codes, absmax}.<step>: the same update in f32 on
        moments that go through bitsandbytes' dequantize and quantize, as its update written in torch does
"""
import math
from pathlib import Path

import torch
from bitsandbytes.functional import create_dynamic_map
from safetensors.torch import save_file

TARGET = Path(__file__).resolve().parents[1] / "adamw.safetensors"
RATE, BETAS, EPS, DECAY, BLOCK = 1e-2, (0.9, 0.999), 1e-8, 0.1, 256
STEPS = 6


def quantize(values, code):
    return torch.ops.bitsandbytes.quantize_blockwise(values.double(), code.clone(), BLOCK)


def dequantize(codes, absmax, code):
    return code[codes.long()] * absmax.repeat_interleave(BLOCK)[: codes.numel()]


def in_f32():
    matrix, vector = torch.nn.Parameter(torch.randn(7, 9).double()), torch.nn.Parameter(torch.randn(37).double())
    both = {"matrix": matrix, "vector": vector}
    tensors = {f"f32.{name}.0": it.detach().clone() for name, it in both.items()}
    groups = [{"params": [matrix], "weight_decay": DECAY}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPS)
    for step in range(1, STEPS + 1):
        for name, it in both.items():
            it.grad = torch.randn(it.shape).double() * 10.0 ** (step % 3 - 2)
            tensors[f"f32.{name}.grad.{step}"] = it.grad.clone()
        tensors[f"f32.norm.{step}"] = torch.nn.utils.clip_grad_norm_([matrix, vector], 1.0)[None]
        optimizer.step()
        tensors |= {f"f32.{name}.{step}": it.detach().clone() for name, it in both.items()}
    return tensors


def in_blocks():
    maps = {"first": create_dynamic_map(signed=True), "second": create_dynamic_map(signed=False)}
    value = torch.randn(1000)
    tensors = {"blocks.value.0": value.clone()}
    moments = {name: (torch.zeros(1000, dtype=torch.uint8), torch.zeros(4)) for name in maps}
    for step in range(1, STEPS + 1):
        gradient = torch.randn(1000) * torch.logspace(-3, 0, 1000)[torch.randperm(1000)]
        tensors[f"blocks.grad.{step}"] = gradient.clone()
        first, second = (dequantize(*moments[name], maps[name]) for name in maps)
        first.mul_(BETAS[0]).add_(gradient, alpha=1.0 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        denominator = (second.sqrt() / math.sqrt(1.0 - BETAS[1] ** step)).add_(EPS)
        value.mul_(1.0 - RATE * DECAY)
        value.addcdiv_(first, denominator, value=-RATE / (1.0 - BETAS[0] ** step))
        moments = {"first": quantize(first, maps["first"]), "second": quantize(second, maps["second"])}
        tensors[f"blocks.value.{step}"] = value.clone()
        for name, (codes, absmax) in moments.items():
            tensors[f"blocks.{name}.codes.{step}"], tensors[f"blocks.{name}.absmax.{step}"] = codes, absmax
    return tensors


def main():
    torch.manual_seed(0)
    tensors = {}
    for name, signed in [("signed", True), ("unsigned", False)]:
        code = create_dynamic_map(signed=signed)
        # Every size there is: far below the smallest value up to the block's largest; the last block is short.
        values = torch.randn(2600) * torch.logspace(-9, 0, 2600)[torch.randperm(2600)]
        values = values if signed else values.abs()
        codes, absmax = quantize(values, code)
        tensors[f"map.{name}"] = code
        tensors |= {f"quantize.{name}.values": values, f"quantize.{name}.codes": codes, f"quantize.{name}.absmax": absmax}
    tensors |= in_f32() | in_blocks()
    narrow = lambda it: it.float() if it.dtype == torch.float64 else it
    save_file({key: narrow(it).contiguous() for key, it in tensors.items()}, TARGET)
    print(TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
