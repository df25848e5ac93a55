"""Greedy continuations of the tiny Llamas, and what transformers' logits processors leave of random logits.

Written with torch 2.15, transformers 5.23:
    python tests/golden/generate/generation.py
Writes tests/golden/generation/
    greedy.json          cases of {model, repetition_penalty, prompts, completions}: `generate(do_sample=False)`, prompt by
                         prompt, no end token
    warpers.json         cases of {temperature, top_k, top_p, min_p}
    warpers.safetensors  `logits` [rows, V], `probabilities.<case>` [rows, V]
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LogitsProcessorList
from transformers.generation.logits_process import (MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper,
                                                    TopPLogitsWarper)

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "generation"
MODELS = ["gqa_tied", "bias_untied", "rope_linear", "rope_dynamic", "rope_llama3"]
PROMPTS = [[5, 17, 3], [60, 2, 9, 33, 8], [41], [7, 7, 7, 50]]
WARPERS = [
    dict(temperature=0.7),
    dict(temperature=1.0, top_k=5),
    dict(temperature=1.3, top_p=0.8),
    dict(temperature=1.0, top_p=0.05),
    dict(temperature=0.9, min_p=0.1),
    dict(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02),
]


def greedy(model, prompt, new_tokens, penalty):
    """The completion; stops the generator where a choice hangs on rounding, which no other engine could repeat."""
    out = model.generate(torch.tensor([prompt]), max_new_tokens=new_tokens, do_sample=False, eos_token_id=None,
                         pad_token_id=0, repetition_penalty=penalty, output_scores=True, return_dict_in_generate=True)
    for scores in out.scores:
        first, second = scores[0].topk(2).values.tolist()
        assert first - second > 1e-4, "a near tie"
    return out.sequences[0, len(prompt):].tolist()


def main():
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    cases = []
    for name in MODELS:
        model = AutoModelForCausalLM.from_pretrained(ROOT / "llama" / name, dtype=torch.float32).eval()
        for penalty in (1.0, 1.3):
            # `rope_dynamic` was trained on 8 positions and stretches them by 2.
            completions = [greedy(model, it, 11 if name == "rope_dynamic" else 24, penalty) for it in PROMPTS]
            cases.append(dict(model=name, repetition_penalty=penalty, prompts=PROMPTS, completions=completions))
    (OUT / "greedy.json").write_text("[\n" + ",\n".join(json.dumps(it) for it in cases) + "\n]\n")

    torch.manual_seed(0)
    logits = torch.randn(4, 600) * 3
    tensors = {"logits": logits}
    for index, case in enumerate(WARPERS):
        warpers = LogitsProcessorList([TemperatureLogitsWarper(case["temperature"])])
        if "top_k" in case:
            warpers.append(TopKLogitsWarper(case["top_k"]))
        if "top_p" in case:
            warpers.append(TopPLogitsWarper(case["top_p"]))
        if "min_p" in case:
            warpers.append(MinPLogitsWarper(case["min_p"]))
        tensors[f"probabilities.{index}"] = warpers(None, logits.clone()).softmax(-1)
    save_file(tensors, OUT / "warpers.safetensors")
    (OUT / "warpers.json").write_text("[\n" + ",\n".join(json.dumps(it) for it in WARPERS) + "\n]\n")


if __name__ == "__main__":
    main()
