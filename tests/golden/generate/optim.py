"""AdamW, learning-rate schedules and clipping as torch and transformers compute them.

Versions: torch 2.x, transformers 5.23 (printed into the golden).
Run:      python tests/golden/generate/optim.py     (writes tests/golden/optim/optim.json)

AdamW runs in float64, so the golden is exact to the last digit an f32 implementation can be asked for.
"""
import json
import pathlib

import torch
import transformers
from transformers import get_scheduler

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).parent.parent / "optim" / "optim.json"


def flat(tensor):
    return [float(x) for x in tensor.detach().flatten()]


def adamw():
    """Two parameters, one decayed and one not; gradients given, clipped, ten steps of a cosine schedule."""
    generator = torch.Generator().manual_seed(7)
    draw = lambda *shape: torch.randn(*shape, generator=generator).double()
    matrix, vector = torch.nn.Parameter(draw(3, 4)), torch.nn.Parameter(draw(5))
    golden = {"matrix": flat(matrix), "vector": flat(vector), "steps": []}
    options = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    groups = [{"params": [matrix], "weight_decay": 0.1}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, **options)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=10)
    for step in range(10):
        scale = 10.0 ** (step % 3 - 1)
        matrix.grad, vector.grad = draw(3, 4) * scale, draw(5) * scale
        record = {"matrix_grad": flat(matrix.grad), "vector_grad": flat(vector.grad)}
        record["learning_rate"] = scheduler.get_last_lr()[0]
        record["grad_norm"] = float(torch.nn.utils.clip_grad_norm_([matrix, vector], 1.0))
        optimizer.step()
        scheduler.step()
        record |= {"matrix": flat(matrix), "vector": flat(vector)}
        golden["steps"].append(record)
    return golden


def schedule(name, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {"name": name, "warmup_steps": warmup, "total_steps": total, "factors": rates}


golden = {
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    "adamw": adamw(),
    "schedules": [
        schedule(name, warmup, total)
        for name in ["linear", "cosine", "constant", "constant_with_warmup"]
        for warmup, total in [(0, 10), (3, 12), (5, 5)]
    ],
}
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps(golden) + "\n")
