"""Eight optimizer steps of a tiny Llama with torch: LoRA from tests/golden/lora, and full fine-tuning.

Written with torch 2.15, transformers 5.23, peft 0.21, after llama.py:
    python tests/golden/generate/sft.py
Each step sums the loss of two micro-batches of two sequences and divides by the supervised tokens of all four;
torch.optim.AdamW (decay 0.1 on matrices, none on vectors), linear schedule with two warm-up steps, clipping at 1.
Writes tests/golden/sft/{rows.json, lora.safetensors, full.safetensors}: loss [8], grad_norm [8], final weights.
"""
import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, get_scheduler

ROOT = Path(__file__).resolve().parents[1]
STEPS = 8


def rows():
    torch.manual_seed(3)
    made = []
    for _ in range(STEPS * 4):
        length = int(torch.randint(4, 14, ()))
        ids = torch.randint(0, 64, (length,)).tolist()
        start = int(torch.randint(1, length, ()))
        made.append({"input_ids": ids, "labels": [-100] * start + ids[start:]})
    return made


def train(model, data):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [{"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.1},
              {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    schedule = get_scheduler("linear", optimizer, 2, STEPS)
    losses, norms = [], []
    for step in range(STEPS):
        window = data[step * 4:step * 4 + 4]
        total = 0.0
        tokens = sum(sum(label != -100 for label in row["labels"][1:]) for row in window)
        for row in window:
            ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
            logits = model(input_ids=ids[None]).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum") / tokens
            loss.backward()
            total += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0).item())
        losses.append(total)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    weights = {n.replace(".default.", ".").removeprefix("base_model.model."): p.detach().clone() for n, p in named}
    return {"loss": torch.tensor(losses), "grad_norm": torch.tensor(norms), **weights}


def main():
    torch.set_num_threads(1)
    folder = ROOT / "sft"
    folder.mkdir(exist_ok=True)
    data = rows()
    (folder / "rows.json").write_text(json.dumps(data) + "\n")
    base = lambda: LlamaForCausalLM.from_pretrained(ROOT / "llama" / "gqa_tied", dtype=torch.float32).eval()
    save_file(train(PeftModel.from_pretrained(base(), ROOT / "lora", is_trainable=True).eval(), data),
              folder / "lora.safetensors")
    save_file(train(base(), data), folder / "full.safetensors")


if __name__ == "__main__":
    main()
