"""Blocks of ggml's types, and their values as the gguf package has them.

Written with gguf 0.19, numpy 2, safetensors 0.8:
    python tests/golden/generate/ggml_blocks.py
The package quantises the older types. Of the `K` types it only reads blocks: theirs are random bytes, so that every bit of a
block is used both ways, with scales as weights have them; some of those are subnormal numbers of 16 bits, and some negative.
Writes
    tests/golden/ggml_blocks.safetensors:
        <type>.data [rows, bytes of a row] (u8)
        <type>.values [rows, width]: `gguf.quants.dequantize`
        source [rows, width]: what the older types are quantised from
    tests/golden/gguf/k_types.gguf, which is no model: a tensor `<type>` of each `K` type, [3, 2, 256], with the values
        <type> [3, 2, 256] in tests/golden/gguf/k_types.safetensors
"""
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
QUANTISED = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0]
# Where 16-bit floats stand in a block.
RANDOM = {Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}


def source(rng):
    """Weights of rows of different size; a block of zeros, one of equal values, one with an outlier, one of tiny values."""
    values = rng.normal(size=(7, 160)).astype(np.float32) * np.float32([0.02, 1, 30, 1e-4, 0.5, 2000, 0.1])[:, None]
    values[0, :32] = 0
    values[1, 32:64] = -0.75
    values[2, 70] = 5000
    values[3, 96:128] *= 1e-3
    return values


def random_blocks(rng, kind, rows, blocks):
    _, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, size=(rows, blocks, size), dtype=np.uint8)
    for at in RANDOM[kind]:
        scales = rng.normal(size=(rows, blocks)) * np.exp(rng.uniform(np.log(1e-6), np.log(0.1), size=(rows, blocks)))
        scales.flat[0] = 0.0
        scales.flat[1] = 2.0**-24
        data[:, :, at:at + 2] = scales.astype(np.float16)[..., None].view(np.uint8)
    return data.reshape(rows, -1)


def k_types(rng):
    writer = gguf.GGUFWriter(ROOT / "gguf" / "k_types.gguf", "none")
    expected = {}
    for kind in RANDOM:
        data = random_blocks(rng, kind, 6, 1).reshape(3, 2, -1)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = gguf.quants.dequantize(data, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, ROOT / "gguf" / "k_types.safetensors", {"format": "np"})


def main():
    rng = np.random.default_rng(11)
    weights = source(rng)
    tensors = {"source": weights}
    for kind in [*QUANTISED, *RANDOM]:
        data = gguf.quants.quantize(weights, kind) if kind in QUANTISED else random_blocks(rng, kind, 5, 3)
        values = gguf.quants.dequantize(data, kind)
        assert np.isfinite(values).all() and (values != 0).mean() > 0.8, kind
        tensors[f"{kind.name}.data"] = np.ascontiguousarray(data)
        tensors[f"{kind.name}.values"] = np.ascontiguousarray(values)
    save_file(tensors, ROOT / "ggml_blocks.safetensors")
    k_types(rng)


if __name__ == "__main__":
    main()
