"""PEFT adapters with DoRA (<https://arxiv.org/abs/2402.09353>) on the tiny Llama models that `llama.py` writes.

Written with torch 2.15, transformers 5.24, peft 0.21:
    python tests/golden/generate/dora.py
Writes tests/golden/dora/<case>/, a PEFT folder, with `golden.safetensors`: input_ids [T], logits [T, V], loss [1], and the
gradients of A, B and the magnitudes. The base of `gqa_tied` has no biases, that of `bias_untied` has them everywhere.
"""
import shutil

import torch
from llama import ROOT, numbers, save_adapter
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM


def main():
    torch.set_num_threads(1)
    for seed, case in enumerate(["gqa_tied", "bias_untied"]):
        torch.manual_seed(20 + seed)
        folder = ROOT / "dora" / case
        shutil.rmtree(folder, ignore_errors=True)
        model = LlamaForCausalLM.from_pretrained(ROOT / "llama" / case, dtype=torch.float32)
        targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
        config = LoraConfig(r=4, lora_alpha=6, target_modules=targets, use_dora=True, task_type="CAUSAL_LM")
        model = get_peft_model(model, config).eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "magnitude" in name:
                    p.mul_(1 + 0.2 * torch.randn_like(p))
                elif "lora_" in name:
                    p.copy_(torch.randn_like(p) * 0.1)
        save_adapter(model, folder, case)
        tensors = numbers(model, torch.randint(0, 64, (12,)), lambda name: "lora_" in name)
        renamed = {k.replace(".default.", ".").replace("vector.weight", "vector"): v for k, v in tensors.items()}
        save_file(renamed, folder / "golden.safetensors")


if __name__ == "__main__":
    main()
