"""Tiny random Llama models, their logits and gradients, and a PEFT adapter with its own.

Written with torch 2.15, transformers 5.23, peft 0.21:
    python tests/golden/generate/llama.py
Writes one Hugging Face folder a case under tests/golden/llama/ with `golden.safetensors` beside the weights:
    input_ids [T], logits [T, V], loss [1] (mean over the shifted targets of the one sequence), grad.<parameter>
and tests/golden/lora/ with a PEFT folder, its logits, loss and the gradients of A and B.
"""
import json, os, shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.2)
CASES = {
    "gqa_tied": dict(tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e5)),
    "bias_untied": dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, head_dim=16),
    "rope_linear": dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)),
    "rope_dynamic": dict(max_position_embeddings=8,
                         rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)),
    "rope_llama3": dict(rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
                                             high_freq_factor=4.0, original_max_position_embeddings=16)),
}


def randomise(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.add_(torch.randn_like(p) * 0.1)
            elif name.endswith("bias"):
                p.copy_(torch.randn_like(p) * 0.1)


def numbers(model, ids, names, labels=None):
    model.zero_grad()
    out = model(input_ids=ids[None], labels=(ids if labels is None else labels)[None])
    out.loss.backward()
    tensors = {"input_ids": ids.to(torch.int32), "logits": out.logits[0].detach().clone(),
               "loss": out.loss.detach().reshape(1)}
    for name, p in model.named_parameters():
        if p.grad is not None and names(name):
            tensors[f"grad.{name}"] = p.grad.clone()
    return tensors


def save_adapter(model, folder, base):
    """A PEFT folder that is the same wherever it is written."""
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    adapter = json.loads(path.read_text())
    adapter["base_model_name_or_path"] = base
    adapter["target_modules"] = sorted(adapter["target_modules"])
    path.write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)


def main():
    torch.set_num_threads(1)
    for seed, (case, extra) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        folder = ROOT / "llama" / case
        shutil.rmtree(folder, ignore_errors=True)
        model = LlamaForCausalLM(LlamaConfig(**{**BASE, **extra})).eval()
        randomise(model)
        model.save_pretrained(folder)
        ids = torch.randint(0, 64, (12,))
        save_file(numbers(model, ids, lambda _: case == "gqa_tied"), folder / "golden.safetensors")

    torch.manual_seed(9)
    folder = ROOT / "lora"
    shutil.rmtree(folder, ignore_errors=True)
    model = LlamaForCausalLM.from_pretrained(ROOT / "llama" / "gqa_tied", dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_rslora=True, task_type="CAUSAL_LM")
    model = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * 0.1)
    save_adapter(model, folder, "gqa_tied")
    ids = torch.randint(0, 64, (12,))
    tensors = numbers(model, ids, lambda name: "lora_" in name)
    save_file({k.replace(".default.", "."): v for k, v in tensors.items()}, folder / "golden.safetensors")


if __name__ == "__main__":
    main()
