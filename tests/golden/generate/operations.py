"""Operations of `host/kernels`, value and gradient, by torch's autograd in float64 on inputs that f32 holds.

Written with torch 2.15, transformers 5.24:
    python tests/golden/generate/operations.py
Writes tests/golden/operations.safetensors. Of each case:
    <case>.in.<input>, <case>.out, <case>.up (what the output's gradient is), <case>.grad.<input>
An operation's own formula is torch's or transformers' where there is one; adapters are written out as in the paper.
"""
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

TARGET = Path(__file__).resolve().parents[1] / "operations.safetensors"
EPS = 1e-5


def rms_norm(x, weight):
    norm = LlamaRMSNorm(x.shape[-1], eps=EPS)
    # The module casts to f32 inside; its formula in float64 is what is wanted.
    variance = x.pow(2).mean(-1, keepdim=True)
    plain = weight * (x * torch.rsqrt(variance + norm.variance_epsilon))
    norm.weight.data = weight.detach().float()
    assert torch.allclose(norm(x.detach().float()), plain.detach().float(), atol=1e-5)
    return plain


def rope(x, cos, sin):
    # transformers takes [batch, heads, T, head_dim] and tables whose halves are equal.
    tables = [torch.cat([it, it], -1)[None] for it in (cos, sin)]
    rotated, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], *tables)
    return rotated[0].transpose(0, 1)


def gated(x, activation):
    gate, up = x.chunk(2, -1)
    return ACT2FN[activation](gate) * up


def lora(x, weight, bias, a, b, scaling):
    return x @ weight.T + bias + scaling * (x @ a.T) @ b.T


def cases():
    t, d, f, r, heads, width = 37, 20, 27, 4, 3, 10
    yield "rms_norm", rms_norm, dict(x=(t, d), weight=(d,))
    yield "layer_norm", lambda x, weight, bias: F.layer_norm(x, (d,), weight, bias, EPS), dict(x=(t, d), weight=(d,), bias=(d,))
    yield "swiglu", lambda gate, up: F.silu(gate) * up, dict(gate=(t, f), up=(t, f))
    yield "geglu", lambda gate, up: ACT2FN["gelu_pytorch_tanh"](gate) * up, dict(gate=(t, f), up=(t, f))
    yield "rope", rope, dict(x=(t, heads, width), cos=(t, width // 2), sin=(t, width // 2))
    layer = lambda i, out, inner: {f"w{i}": (out, inner), f"bias{i}": (out,), f"a{i}": (r, inner), f"b{i}": (out, r)}
    yield ("lora_norm", lambda x, norm, **p: torch.cat([lora(rms_norm(x, norm), p[f"w{i}"], p[f"bias{i}"], p[f"a{i}"], p[f"b{i}"], 0.5)
                                                         for i in range(3)], -1),
           dict(x=(t, d), norm=(d,), **layer(0, 24, d), **layer(1, 8, d), **layer(2, 8, d)))
    yield ("lora_gated", lambda x, residual, **p: residual + lora(gated(x, "silu"), p["w0"], p["bias0"], p["a0"], p["b0"], 2.0),
           dict(x=(t, 2 * f), residual=(t, d), **layer(0, d, f)))
    # New ones last: inputs are drawn in this order.
    yield "gelu", lambda x: ACT2FN["gelu_new"](x), dict(x=(t, f))


def main():
    torch.manual_seed(0)
    tensors = {}
    for name, operation, shapes in cases():
        inputs = {key: torch.randn(shape).double().requires_grad_() for key, shape in shapes.items()}
        output = operation(**inputs)
        upstream = torch.randn(output.shape)
        output.backward(upstream.double())
        tensors[f"{name}.out"] = output.detach().float()
        tensors[f"{name}.up"] = upstream
        for key, value in inputs.items():
            tensors[f"{name}.in.{key}"] = value.detach().float()
            tensors[f"{name}.grad.{key}"] = value.grad.float()
    save_file({key: value.contiguous() for key, value in tensors.items()}, TARGET)
    print(TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
