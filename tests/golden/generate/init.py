"""PEFT adapters that begin as a part of the weight, PiSSA (<https://arxiv.org/abs/2404.02948>) and OLoRA
(<https://arxiv.org/abs/2406.01775>), on the tiny Llama models that `llama.py` writes.

Written with torch 2.15, transformers 5.24, peft 0.21:
    python tests/golden/generate/init.py
Writes tests/golden/init/<method>/, a PEFT folder as it is saved without conversion: A and B as they are after something was
added to them, and `init_lora_weights`, by which the weights are changed again when it is loaded. Beside it
`golden.safetensors`: input_ids [T], logits [T, V], loss [1], the gradients of A and B, and of what each pair began with the
product `scaling B A` as `<path>.origin`. `bias_untied` is the base; q_proj and down_proj have other ranks and factors.
"""
import shutil

import torch
from llama import ROOT, numbers, save_adapter
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM


def main():
    torch.set_num_threads(1)
    for seed, method in enumerate(["pissa", "olora"]):
        torch.manual_seed(40 + seed)
        folder = ROOT / "init" / method
        shutil.rmtree(folder, ignore_errors=True)
        model = LlamaForCausalLM.from_pretrained(ROOT / "llama" / "bias_untied", dtype=torch.float32)
        targets = ["q_proj", "v_proj", "gate_proj", "down_proj"]
        config = LoraConfig(
            r=4, lora_alpha=6, target_modules=targets, init_lora_weights=method, rank_pattern={"q_proj": 2},
            alpha_pattern={"down_proj": 8}, task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, config).eval()
        origins = {}
        with torch.no_grad():
            for name, module in model.named_modules():
                if hasattr(module, "lora_A") and "default" in module.lora_A:
                    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                    path = name.removeprefix("base_model.model.")
                    origins[f"{path}.origin"] = (module.scaling["default"] * b @ a).clone()
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.add_(torch.randn_like(p) * 0.1)
        save_adapter(model, folder, "bias_untied")
        tensors = numbers(model, torch.randint(0, 64, (12,)), lambda name: "lora_" in name)
        renamed = {k.replace(".default.", "."): v for k, v in tensors.items()} | origins
        save_file(renamed, folder / "golden.safetensors")


if __name__ == "__main__":
    main()
