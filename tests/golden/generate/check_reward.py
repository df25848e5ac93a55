"""Loads a reward model and compares what transformers says of each sequence with what SCORES says (safetensors: input_ids of one
sequence, score).

    python tests/golden/generate/check_reward.py BASE FOLDER SCORES
FOLDER is a PEFT adapter on BASE, or a whole model, for which BASE is not looked at. Prints the difference; exits with 1 when it
is 1e-4 or more. Seen with torch 2.15, transformers 5.23, peft 0.21.
"""
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

base, folder, scores = sys.argv[1:]
expected = load_file(scores)
if pathlib.Path(folder, "adapter_config.json").exists():
    model = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, num_labels=1)
    model = PeftModel.from_pretrained(model, folder)
else:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
with torch.no_grad():
    logits = model.eval()(input_ids=expected["input_ids"].long()[None]).logits
assert logits.shape == (1, 1), logits.shape
difference = (logits[0, 0] - expected["score"][0]).abs().item()
print(f"difference {difference:.2e}")
sys.exit(difference >= 1e-4)
