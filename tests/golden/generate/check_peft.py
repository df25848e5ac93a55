"""Loads BASE and a PEFT ADAPTER folder and compares PEFT's logits with those of LOGITS (safetensors: input_ids, logits).

    python tests/golden/generate/check_peft.py BASE ADAPTER LOGITS
Prints the largest difference; exits with 1 when it is 1e-4 or more. Seen with torch 2.15, transformers 5.23, peft 0.21.
"""
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

base, adapter, logits = sys.argv[1:]
expected = load_file(logits)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
with torch.no_grad():
    got = model(input_ids=expected["input_ids"].long()[None]).logits[0]
difference = (got - expected["logits"]).abs().max().item()
print(f"largest difference {difference:.2e}")
sys.exit(difference >= 1e-4)
