"""What the generators of objectives share: TRL's own loss code, taken from its source, and goldens with their cases.

A trainer can't be built without a model, so the method that computes a loss is taken as text, cut before it logs, and run
on numbers with a stand-in for `self`. Its text is only changed where it says f32, so that autograd is in float64.
"""
import argparse
import ast
import importlib
import inspect
import json
import pathlib
import textwrap
import types

import torch
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "objectives"
torch.set_num_threads(1)


def arguments(doc, *extra):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in extra:
        parser.add_argument(name, type=pathlib.Path, required=True, help=text)
    return parser.parse_args()


def method(module, owner, name, until=None, returns=None, changes=(), stands_for=None):
    """`owner.name` of an importable module as a function, its body ended before the line that begins with `until`.

    `stands_for` replaces globals of the module.
    """
    module = importlib.import_module(module)
    text = textwrap.dedent(inspect.getsource(getattr(getattr(module, owner), name)))
    return compiled(text, name, until, returns, changes, dict(vars(module)) | (stands_for or {}))


def unpacked(path, owner, name, namespace, until=None, returns=None, changes=()):
    """The same from a file that is not imported (TRL 0.24, which wants older packages); `owner` None is a plain function."""
    source = path.read_text(encoding="utf-8")
    body = ast.parse(source).body
    if owner:
        body = next(it for it in body if isinstance(it, ast.ClassDef) and it.name == owner).body
    node = next(it for it in body if isinstance(it, ast.FunctionDef) and it.name == name)
    text = textwrap.dedent("\n".join(source.splitlines()[node.lineno - 1:node.end_lineno]))
    return compiled(text, name, until, returns, changes, dict(namespace))


def lines(path, first, end, changes=()):
    """Lines of a file from the one that holds `first` up to the one that holds `end`, as code to execute."""
    rows = path.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, row in enumerate(rows) if first in row)
    stop = next(i for i in range(begin, len(rows)) if end in rows[i])
    return changed(textwrap.dedent("\n".join(rows[begin:stop])), changes)


def changed(text, changes):
    for old, new in changes:
        assert old in text, f"TRL's source no longer says {old!r}"
        text = text.replace(old, new)
    return text


def compiled(text, name, until, returns, changes, namespace):
    if until:
        at = text.index(f"    {until}")
        text = text[:at] + f"    return {returns}\n"
    exec(changed(text, changes), namespace)
    return namespace[name]


def stand_in(**values):
    return types.SimpleNamespace(**values)


def accelerator():
    same = lambda it, **_: it
    return stand_in(device="cpu", num_processes=1, gather=same, gather_for_metrics=same, reduce=same)


def draw(generator, *shape, scale=1.0):
    """Normal numbers that f32 holds exactly, as float64."""
    return (torch.randn(*shape, generator=generator) * scale).double()


def logps(generator, count):
    """Log-probabilities of tokens: negative, of order 1."""
    return -draw(generator, count).abs() - 0.01


def padded(flat, lengths, fill=0.0):
    """Values end to end as rows, padded on the right; differentiable."""
    width = max(lengths)
    rows, at = [], 0
    for length in lengths:
        tail = torch.full((width - length,), fill, dtype=flat.dtype)
        rows.append(torch.cat([flat[at:at + length], tail]))
        at += length
    return torch.stack(rows)


def mask(lengths):
    return torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])


def flat(rows, lengths):
    return torch.cat([row[:length] for row, length in zip(rows, lengths)])


def write(name, tensors, cases):
    """`objectives/<name>.safetensors`; `cases` (JSON) stand in its metadata."""
    FOLDER.mkdir(exist_ok=True)
    tensors = {key: value.detach().reshape(-1).float().contiguous() for key, value in tensors.items()}
    path = FOLDER / f"{name}.safetensors"
    save_file(tensors, path, metadata={"cases": json.dumps(cases)})
    print(path.name, path.stat().st_size, "bytes")
