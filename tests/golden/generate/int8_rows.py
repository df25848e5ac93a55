"""Weights in 8 bits with a factor a row by bitsandbytes, on the CPU.

Written with bitsandbytes 0.50.2 and torch 2.15:
    python tests/golden/generate/int8_rows.py
Writes tests/golden/int8_rows.safetensors:
    <case>.values [out, in]
    <case>.codes [out, in] (i8), <case>.absmax [out]: `int8_vectorwise_quant`, which is what `Linear8bitLt` keeps as `CB` and `SCB`
    <case>.dequantized [out, in]: `int8_vectorwise_dequant`
"""
from pathlib import Path

import torch
from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant
from safetensors.torch import save_file

TARGET = Path(__file__).resolve().parents[1] / "int8_rows.safetensors"


def cases():
    outliers = torch.randn(6, 200)
    outliers[1, 3], outliers[4, 150] = 80.0, -3e4
    zeros = torch.randn(4, 130)
    zeros[0] = 0.0
    zeros[2, 60:] = 0.0
    zeros[3] = -0.0
    # Rows whose factor is subnormal, and whose inverse is infinite, among them.
    tiny = torch.randn(42, 45) * torch.logspace(-45, -34, 42)[:, None]
    # Values in the middle between two codes, and their neighbours, under a factor of 127 and others.
    middles = torch.arange(-126.5, 127.5, 1.0)
    up, down = torch.tensor(float("inf")), torch.tensor(float("-inf"))
    halves = torch.cat([middles, middles.nextafter(up), middles.nextafter(down), torch.tensor([127.0])])
    return {
        "few": torch.randn(3, 5),
        "rows": torch.randn(5, 70) * 0.02,
        "many": torch.randn(131, 135) * torch.rand(131, 1) * 0.1,
        "single": torch.randn(7, 1),
        "outliers": outliers,
        "zeros": zeros,
        "tiny": tiny,
        "halves": halves * torch.tensor([1.0, 0.25, 0.01, 3.7, 1e-5])[:, None],
        "large": torch.randn(3, 64) * torch.tensor([1e30, 1e36, 5e37])[:, None],
    }


def main():
    torch.manual_seed(0)
    tensors = {}
    for case, values in cases().items():
        assert values.isfinite().all(), case
        kept = values.clone()
        codes, absmax, outliers = int8_vectorwise_quant(values)
        assert outliers is None and torch.equal(values, kept)
        tensors[f"{case}.values"] = values
        tensors[f"{case}.codes"] = codes
        tensors[f"{case}.absmax"] = absmax
        tensors[f"{case}.dequantized"] = int8_vectorwise_dequant(codes, absmax)
    save_file({key: it.contiguous().clone() for key, it in tensors.items()}, TARGET)
    print(TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
