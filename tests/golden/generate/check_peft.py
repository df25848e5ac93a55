"""Loads BASE and a PEFT ADAPTER folder and compares PEFT's logits with those of LOGITS (safetensors: input_ids, logits).

    python tests/golden/generate/check_peft.py BASE ADAPTER LOGITS [BASE ADAPTER LOGITS ...]
Prints the largest difference of each, those of virtual tokens left out; exits with 1 when one is 1e-4 or more. Seen with torch
2.15, transformers 5.24, peft 0.21.
"""
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

arguments, worst = sys.argv[1:], 0.0
for base, adapter, logits in zip(arguments[::3], arguments[1::3], arguments[2::3]):
    expected = load_file(logits)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        got = model(input_ids=expected["input_ids"].long()[None]).logits[0]
    difference = (got[-len(expected["logits"]):] - expected["logits"]).abs().max().item()
    print(f"largest difference {difference:.2e}: {adapter}")
    worst = max(worst, difference)
sys.exit(worst >= 1e-4)
