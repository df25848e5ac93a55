"""Whole optimizer steps of KTO on the tiny Llama of `train.py`, by torch and PEFT: mismatched completions, divergence, loss.

Versions: torch 2.x, transformers 5.2x, peft 0.21 (printed into the golden).
Run:      python tests/golden/generate/kto_step.py     (reads tests/golden/train/, writes tests/golden/kto/)

Float64 throughout, on weights drawn in float32. The reference is the model without the adapter, the policy begins with it, so
that they differ from the first step on. Sequences are run one by one, so nothing is padded or packed here; the loss is that of
TRL 1.16's `KTOTrainer` over the four completions of a step at once, which `preference.py` holds us to by itself.
"""
import json
import pathlib

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

torch.set_num_threads(1)
TRAIN = pathlib.Path(__file__).parent.parent / "train"
OUT = pathlib.Path(__file__).parent.parent / "kto"
STEPS, RATE, CLIP, DECAY, MAX_LENGTH = 4, 1e-2, 0.5, 0.1, 12
OBJECTIVE = dict(beta=0.5, desirable_weight=1.0, undesirable_weight=1.3)
LABELS = [[True, False, False, True], [False, False, False, True], [True, True, True, True], [True, False, True, False]]


def logp(net, row):
    """Summed over the completion."""
    labels = torch.tensor(row["labels"][1:])
    kept = labels != -100
    logits = net(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1][kept]
    return torch.log_softmax(logits, -1).gather(1, labels[kept][:, None]).sum()


def apart(row):
    """Prompt and completion: what stands before the first label, and the rest."""
    first = next(at for at, label in enumerate(row["labels"]) if label != -100)
    return row["input_ids"][:first], row["input_ids"][first:]


def mismatched(rows):
    """TRL's `add_kl_completion_ids`, and its cut."""
    prompts, completions = zip(*map(apart, rows))
    completions = [completions[-1], *completions[:-1]]
    whole = [{"input_ids": a + b, "labels": [-100] * len(a) + b} for a, b in zip(prompts, completions)]
    return [{key: it[:MAX_LENGTH] for key, it in row.items()} for row in whole]


def stack(net, rows):
    return torch.stack([logp(net, row) for row in rows])


def run(loss_type):
    reference = LlamaForCausalLM.from_pretrained(TRAIN / "model").double()
    base = LlamaForCausalLM.from_pretrained(TRAIN / "model")
    policy = peft.PeftModel.from_pretrained(base, TRAIN / "adapter", is_trainable=True).double()
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    curve = []
    for step, labels in zip(STEPS_DATA, LABELS):
        rows, good = sum(step, []), torch.tensor(labels)
        kl = torch.zeros(())
        if loss_type == "kto":
            others = mismatched(rows)
            with torch.no_grad():
                kl = (stack(policy, others) - stack(reference, others)).mean().clamp(min=0)
        with torch.no_grad():
            held = stack(reference, rows)
        logps = stack(policy, rows)
        ratios, beta = logps - held, OBJECTIVE["beta"]
        losses = torch.where(good, OBJECTIVE["desirable_weight"] * (1 - torch.sigmoid(beta * (ratios - kl))),
                             OBJECTIVE["undesirable_weight"] * (1 - torch.sigmoid(beta * (kl - ratios))))
        loss = losses.mean()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(trained, CLIP))
        optimizer.step()
        optimizer.zero_grad()
        told = {"loss": loss, "grad_norm": norm} | ({"kl": kl} if loss_type == "kto" else {})
        for side, of_side in (("chosen", good), ("rejected", ~good)):
            if of_side.any():
                told |= {f"rewards/{side}": beta * ratios[of_side].mean(), f"logps/{side}": logps[of_side].mean()}
        if good.any() and (~good).any():
            told["rewards/margins"] = told["rewards/chosen"] - told["rewards/rejected"]
        curve.append({key: float(torch.as_tensor(value).detach()) for key, value in told.items()})
    final = peft.get_peft_model_state_dict(policy)
    save_file({name: p.detach().float().contiguous() for name, p in final.items()}, OUT / f"{loss_type}.safetensors")
    return curve


OUT.mkdir(exist_ok=True)
STEPS_DATA = json.loads((TRAIN / "train.json").read_text())["steps"][:STEPS]
golden = {
    "versions": {it.__name__: it.__version__ for it in [torch, transformers, peft]},
    "learning_rate": RATE, "max_length": MAX_LENGTH, "objective": OBJECTIVE, "labels": LABELS,
    "curves": {loss_type: run(loss_type) for loss_type in ("kto", "apo_zero_unpaired")},
}
(OUT / "kto.json").write_text(json.dumps(golden) + "\n")
