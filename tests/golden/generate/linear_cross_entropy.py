"""Loss, hits, entropy and log-probabilities of a linear head, with gradients, by torch's autograd in float64.

Written with torch 2.15:
    python tests/golden/generate/linear_cross_entropy.py
Writes tests/golden/linear_cross_entropy.safetensors. Of each case:
    <case>.hidden [S, D], <case>.weight [V, D], <case>.targets [S] (i32)
    <case>.loss, <case>.correct, <case>.entropy [1]; <case>.loss.grad.<input> of 0.25 * loss
    <case>.logps [S], <case>.up [S] (what their gradient is); <case>.logps.grad.<input>
"""
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

TARGET = Path(__file__).resolve().parents[1] / "linear_cross_entropy.safetensors"
FACTOR = 0.25


def case(rows, vocabulary, width, spread, cap=None, scale=1.0):
    """`spread` is about how far logits are apart: 0.3 is nearly uniform, 8 nearly certain. With `cap` they become
    `scale * cap * tanh(logits / cap)`."""
    hidden = (torch.randn(rows, width) * spread / width**0.5).double().requires_grad_()
    weight = torch.randn(vocabulary, width).double().requires_grad_()
    logits = hidden @ weight.T
    if cap:
        logits = scale * cap * torch.tanh(logits / cap)
    targets = torch.randint(vocabulary, (rows,))
    # Half of the targets are what the head says.
    targets[::2] = logits.argmax(-1)[::2]
    loss = F.cross_entropy(logits, targets, reduction="sum")
    leaves = {"hidden": hidden, "weight": weight}
    found = {"hidden": hidden, "weight": weight, "targets": targets.int(), "loss": loss[None]}
    found["correct"] = (logits.argmax(-1) == targets).sum()[None]
    found["entropy"] = torch.distributions.Categorical(logits=logits).entropy().sum()[None]
    gradients = torch.autograd.grad(FACTOR * loss, leaves.values(), retain_graph=True)
    found |= {f"loss.grad.{name}": it for name, it in zip(leaves, gradients)}
    logps = F.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
    upstream = torch.randn(rows)
    gradients = torch.autograd.grad(logps, leaves.values(), upstream.double())
    found |= {"logps": logps, "up": upstream}
    found |= {f"logps.grad.{name}": it for name, it in zip(leaves, gradients)}
    return found


def main():
    torch.manual_seed(0)
    cases = {"even": case(12, 48, 8, 1.0), "odd": case(23, 333, 12, 0.3), "certain": case(17, 257, 16, 8.0)}
    cases["bounded"] = case(19, 129, 16, 4.0, cap=3.0, scale=0.8)
    tensors = {f"{name}.{key}": it.detach() for name, found in cases.items() for key, it in found.items()}
    narrow = lambda it: it if it.dtype == torch.int32 else it.float()
    save_file({key: narrow(it).contiguous() for key, it in tensors.items()}, TARGET)
    print(TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
