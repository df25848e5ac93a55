"""Whole optimizer steps of PPO on the tiny Llama of `train.py`, by torch and PEFT: policy, values and entropy together.

Versions: torch 2.x, transformers 5.23, peft 0.21 (printed into the golden).
Run:      python tests/golden/generate/ppo_step.py     (reads tests/golden/train/, writes tests/golden/ppo/)

Float64 throughout, on numbers drawn in float32. What a rollout would have found (old log-probabilities, advantages, values and
returns) is drawn: the functions that find it are held to TRL elsewhere (`ppo.py`). Sequences are run one by one, so nothing
is padded or packed here. Each case of a value model begins with the same head, which is not zero, so that its loss reaches the
trunk where it may.
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
OUT = pathlib.Path(__file__).parent.parent / "ppo"
STEPS, RATE, CLIP, DECAY, TEMPERATURE = 4, 1e-2, 0.5, 0.1, 0.8
CLIPRANGE, CLIPRANGE_VALUE, VF_COEF, ENTROPY_COEF = 0.2, 0.2, 0.5, 0.02
GENERATOR = torch.Generator().manual_seed(3)


def draw(*shape, scale=1.0):
    """Numbers that float32 and the golden's text hold exactly."""
    return torch.randn(*shape, generator=GENERATOR).mul(scale).float().double()


def adapted():
    return peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(TRAIN / "model"), TRAIN / "adapter", is_trainable=True).double()


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(HEAD[0].clone()), torch.nn.Parameter(HEAD[1].clone())

    def forward(self, hidden):
        return (hidden @ self.weight.T)[:, 0] + self.bias


def states(net, row):
    """Hidden states that predict the supervised tokens, the logits there, and the tokens."""
    labels = torch.tensor(row["labels"][1:])
    kept = labels != -100
    found = net(input_ids=torch.tensor([row["input_ids"]]), output_hidden_states=True)
    return found.hidden_states[-1][0, :-1][kept], found.logits[0, :-1][kept] / TEMPERATURE, labels[kept]


def logps(logits, tokens):
    return torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]


def rollout(net, step):
    micro_batches = []
    for rows in step:
        with torch.no_grad():
            old = torch.cat([logps(*states(net, row)[1:]) for row in rows])
        count = len(old)
        old = (old + draw(count, scale=0.2)).float().double()
        micro_batches.append({"old": old, "advantages": draw(count), "values": draw(count, scale=0.3), "returns": draw(count)})
    return micro_batches


def run(kind):
    policy, head = adapted(), Head()
    trunk = adapted() if kind == "copy" else policy
    named = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    if kind == "copy":
        named += [("value_model." + name, p) for name, p in trunk.named_parameters() if p.requires_grad]
    named += [("score.weight", head.weight), ("score.bias", head.bias)]
    groups = [{"params": [p for _, p in named if p.dim() > 1], "weight_decay": DECAY},
              {"params": [p for _, p in named if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    curve = []
    for step, found in zip(STEPS_DATA, ROLLOUTS):
        tokens = sum(len(it["old"]) for it in found)
        sums = {"policy": 0.0, "value": 0.0, "entropy": 0.0, "approxkl": 0.0, "ratio": 0.0}
        for rows, known in zip(step, found):
            parts = [states(policy, row) for row in rows]
            new = torch.cat([logps(logits, ids) for _, logits, ids in parts])
            distributions = torch.cat([torch.log_softmax(logits, -1) for _, logits, _ in parts])
            hidden = [it[0] for it in parts] if trunk is policy else [states(trunk, row)[0] for row in rows]
            hidden = torch.cat(hidden)
            values = head(hidden.detach() if kind == "shared_detached" else hidden)
            ratios, advantages = (new - known["old"]).exp(), known["advantages"]
            clipped = ratios.clamp(1 - CLIPRANGE, 1 + CLIPRANGE)
            near = known["values"] + (values - known["values"]).clamp(-CLIPRANGE_VALUE, CLIPRANGE_VALUE)
            errors = torch.maximum((values - known["returns"]) ** 2, (near - known["returns"]) ** 2)
            sums["policy"] = sums["policy"] - torch.minimum(ratios * advantages, clipped * advantages).sum() / tokens
            sums["value"] = sums["value"] + 0.5 * errors.sum() / tokens
            sums["entropy"] = sums["entropy"] - (distributions.exp() * distributions).sum() / tokens
            sums["approxkl"] += float(0.5 * ((new.detach() - known["old"]) ** 2).sum() / tokens)
            sums["ratio"] += float(ratios.detach().sum() / tokens)
        loss = sums["policy"] + VF_COEF * sums["value"] - ENTROPY_COEF * sums["entropy"]
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP))
        optimizer.step()
        optimizer.zero_grad()
        curve.append({
            "loss": float(loss.detach()), "grad_norm": norm, "loss/policy_avg": float(sums["policy"].detach()),
            "loss/value_avg": float(sums["value"].detach()), "policy/entropy_avg": float(sums["entropy"].detach()),
            "policy/approxkl_avg": sums["approxkl"], "val/ratio": sums["ratio"],
        })
    final = peft.get_peft_model_state_dict(policy)
    if kind == "copy":
        final |= {"value_model." + name: p for name, p in peft.get_peft_model_state_dict(trunk).items()}
        final |= {"value_model.score.weight": head.weight, "value_model.score.bias": head.bias}
    else:
        final |= {"score.weight": head.weight, "score.bias": head.bias}
    plain = {name.replace("base_model.model.", ""): p.detach().float().contiguous() for name, p in final.items()}
    save_file(plain, OUT / f"{kind}.safetensors")
    return curve


OUT.mkdir(exist_ok=True)
STEPS_DATA = json.loads((TRAIN / "train.json").read_text())["steps"][:STEPS]
HEAD = draw(1, 32, scale=0.1), draw(1)
ROLLOUTS = [rollout(adapted(), step) for step in STEPS_DATA]
golden = {
    "versions": {it.__name__: it.__version__ for it in [torch, transformers, peft]},
    "learning_rate": RATE, "temperature": TEMPERATURE, "head": {"weight": HEAD[0][0].tolist(), "bias": HEAD[1].tolist()},
    "objective": dict(cliprange=CLIPRANGE, cliprange_value=CLIPRANGE_VALUE, vf_coef=VF_COEF, entropy_coef=ENTROPY_COEF),
    "rollouts": [[{key: value.tolist() for key, value in it.items()} for it in step] for step in ROLLOUTS],
    "curves": {kind: run(kind) for kind in ("shared", "shared_detached", "copy")},
}
(OUT / "ppo.json").write_text(json.dumps(golden) + "\n")
