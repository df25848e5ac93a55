"""Weights in 4 bits by bitsandbytes, on the CPU.

Written with bitsandbytes 0.50.2 and torch 2.15, in one thread (torch's sum of more than 32768 values depends on it):
    python tests/golden/generate/four_bit.py
No case's width is a multiple of 32 without being one of 64: there, with AVX-512, `dequantize_4bit` takes the factors of other
blocks than `quantize_4bit` has found. The second zero of fp4 is positive, but comes back negative where the width is even and
no multiple of 32.
Writes tests/golden/four_bit.safetensors:
    code.<nf4|fp4> [16]: `get_4bit_type`
    <case>.values [out, in]
    <case>.<kind>.{codes [ceil(out in / 2)] (u8), absmax [blocks], dequantized [out, in]}: `quantize_4bit` with blocks of 64
    <case>.<kind>.nested.{codes [blocks] (u8), absmax [ceil(blocks / 256)], offset [1], dequantized [out, in]}: the same with
        `compress_statistics`
    mean.<count> [1]: `torch.mean` of the first `count` of `hashed` below
"""
import os
from pathlib import Path

# Rows of odd width are dequantised in plain torch, which would be compiled for every shape.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from bitsandbytes.functional import dequantize_4bit, get_4bit_type, quantize_4bit
from safetensors.torch import save_file

TARGET = Path(__file__).resolve().parents[1] / "four_bit.safetensors"
COUNTS = [1, 3, 7, 8, 9, 31, 32, 33, 63, 100, 255, 511, 512, 513, 1000, 2047, 2048, 4097, 9000, 32_767, 36_864, 200_001]


def hashed(count):
    """24 bits of a multiplicative hash of each index, as a fraction."""
    index = torch.arange(count, dtype=torch.int64)
    return (((index * 2_654_435_761) % 2**32) >> 8).float() / 2**24


def cases():
    outliers = torch.randn(6, 200)
    outliers[1, 3], outliers[4, 150] = 80.0, -3e4
    zeros = torch.randn(3, 130)
    zeros[0, :64] = 0.0
    zeros[2, 60:] = 0.0
    tiny = torch.randn(3, 128) * torch.logspace(-44, -3, 384).reshape(3, 128)
    # Every middle between two values of both kinds, and its neighbours, in blocks whose factor is 1.
    middles = []
    for kind in ["nf4", "fp4"]:
        code = get_4bit_type(kind, device="cpu").sort().values
        middle = (code[1:] + code[:-1]) / 2
        up, down = torch.tensor(float("inf")), torch.tensor(float("-inf"))
        middles += [torch.cat([middle, middle.nextafter(up), middle.nextafter(down), torch.ones(19)])]
    return {
        "few": torch.randn(3, 5),
        "even": torch.randn(2, 64) * 0.02,
        "rows": torch.randn(5, 70),
        "many": torch.randn(131, 135) * torch.rand(131, 1) * 0.1,
        "nested_whole": torch.randn(64, 256) * 0.02,
        "outliers": outliers,
        "zeros": zeros,
        "nothing": torch.zeros(2, 100),
        "tiny": tiny,
        "middles": torch.stack(middles),
    }


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tensors = {}
    for kind in ["nf4", "fp4"]:
        tensors[f"code.{kind}"] = get_4bit_type(kind, device="cpu")
    for case, values in cases().items():
        tensors[f"{case}.values"] = values
        for kind in ["nf4", "fp4"]:
            codes, state = quantize_4bit(values, blocksize=64, quant_type=kind)
            tensors[f"{case}.{kind}.codes"] = codes.flatten()
            tensors[f"{case}.{kind}.absmax"] = state.absmax
            tensors[f"{case}.{kind}.dequantized"] = dequantize_4bit(codes, state)
            again, state = quantize_4bit(values, blocksize=64, quant_type=kind, compress_statistics=True)
            assert torch.equal(again, codes) and state.state2.blocksize == 256
            tensors[f"{case}.{kind}.nested.codes"] = state.absmax
            tensors[f"{case}.{kind}.nested.absmax"] = state.state2.absmax
            tensors[f"{case}.{kind}.nested.offset"] = state.offset[None]
            tensors[f"{case}.{kind}.nested.dequantized"] = dequantize_4bit(codes, state)
    tensors |= {f"mean.{count}": hashed(count).mean()[None] for count in COUNTS}
    save_file({key: it.contiguous().clone() for key, it in tensors.items()}, TARGET)
    print(TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
