"""PEFT adapters beside LoRA, and LoRA with modules that are trained whole, on the tiny models that `llama.py` and
`families.py` write.

Written with torch 2.15, transformers 5.24, peft 0.21:
    python tests/golden/generate/adapters.py
Writes tests/golden/adapters/<kind>/<case>/: a PEFT folder whose weights were moved away from where they begin, and
`golden.safetensors`: input_ids [T], logits [T, V] (those of virtual tokens left out), loss [1] and the gradients of what is
trained, by the names that PEFT saves them under; of a projected prefix, which PEFT saves as what came of it, gradients and weights
of the projection by PEFT's own names. `base` in CASES is below tests/golden. Names of cases as arguments write those alone.
"""
import json
import shutil
import sys

import torch
from llama import ROOT, numbers
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

TIED, UNTIED = "llama/gqa_tied", "llama/bias_untied"
CASES = {
    "modules_to_save/untied": (UNTIED, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "modules_to_save/both_of_tied": (TIED, LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "modules_to_save/embedding_of_tied": (TIED, LoraConfig(r=2, target_modules=["v_proj"], modules_to_save=["embed_tokens"])),
    "modules_to_save/head_of_tied": (TIED, LoraConfig(r=2, target_modules=["v_proj"], modules_to_save=["lm_head"])),
    "modules_to_save/kept_tied": (TIED, LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "modules_to_save/parts_of_blocks": (UNTIED, LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["layernorm", "up_proj", "model.norm"])),
    "ia3/default": (TIED, IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3/all": (UNTIED, IA3Config(
        target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        feedforward_modules=["v_proj", "o_proj", "up_proj"])),
    "ia3/with_module": (TIED, IA3Config(
        target_modules=["k_proj"], feedforward_modules=[], modules_to_save=["lm_head"])),
    "ia3/gpt2": ("families/gpt2", IA3Config(
        target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True)),
    "ia3/gemma2": ("families/gemma2", IA3Config(
        target_modules=["q_proj", "up_proj", "down_proj"], feedforward_modules=["up_proj", "down_proj"])),
    "prompt_tuning/llama": (TIED, PromptTuningConfig(num_virtual_tokens=5)),
    "prompt_tuning/gpt2": ("families/gpt2", PromptTuningConfig(num_virtual_tokens=3)),
    "prompt_tuning/gemma2": ("families/gemma2", PromptTuningConfig(num_virtual_tokens=4)),
    "prompt_tuning/mistral": ("families/mistral", PromptTuningConfig(num_virtual_tokens=6)),
    "prefix_tuning/llama": (TIED, PrefixTuningConfig(num_virtual_tokens=5)),
    "prefix_tuning/bias": (UNTIED, PrefixTuningConfig(num_virtual_tokens=4)),
    "prefix_tuning/gpt2": ("families/gpt2", PrefixTuningConfig(num_virtual_tokens=3)),
    "prefix_tuning/qwen3": ("families/qwen3", PrefixTuningConfig(num_virtual_tokens=4)),
    "prefix_tuning/mistral": ("families/mistral", PrefixTuningConfig(num_virtual_tokens=6)),
    "prefix_tuning/yarn": ("families/llama_yarn", PrefixTuningConfig(num_virtual_tokens=2)),
    "prefix_tuning/projected": (TIED, PrefixTuningConfig(
        num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=24)),
}


def saved_name(name, virtual):
    """As PEFT saves a parameter."""
    if virtual:
        return "prompt_embeddings"
    return name.replace(".modules_to_save.default", "").replace(".default", "")


def main():
    torch.set_num_threads(1)
    for seed, (case, (base, config)) in enumerate(CASES.items()):
        if sys.argv[1:] and case not in sys.argv[1:]:
            continue
        torch.manual_seed(100 + seed)
        folder = ROOT / "adapters" / case
        shutil.rmtree(folder, ignore_errors=True)
        model = AutoModelForCausalLM.from_pretrained(ROOT / base, dtype=torch.float32)
        config.task_type = "CAUSAL_LM"
        model = get_peft_model(model, config).eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.1)
        model.save_pretrained(folder)
        path = folder / "adapter_config.json"
        written = json.loads(path.read_text())
        written["base_model_name_or_path"] = base
        for key in ["target_modules", "feedforward_modules"]:
            if isinstance(written.get(key), list):
                written[key] = sorted(written[key])
        path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
        (folder / "README.md").unlink(missing_ok=True)
        virtual = config.is_prompt_learning
        ids = torch.randint(0, 64, (12,))
        # PEFT has the last virtual token predict the first word; nothing does where there is none.
        labels = torch.cat([torch.tensor([-100]), ids[1:]])
        tensors = numbers(model, ids, lambda name: True, labels)
        if config.peft_type == "PROMPT_TUNING":
            tensors["logits"] = tensors["logits"][config.num_virtual_tokens:].clone()
        projected = virtual and config.peft_type == "PREFIX_TUNING" and config.prefix_projection
        renamed = {}
        for name, value in tensors.items():
            if not name.startswith("grad."):
                renamed[name] = value
            else:
                renamed["grad." + saved_name(name.removeprefix("grad."), virtual and not projected)] = value
        if projected:
            weights = {saved_name(name, False): p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
            renamed |= {"weight." + name: p for name, p in weights.items()}
        save_file(renamed, folder / "golden.safetensors")
        print(case, {k: tuple(v.shape) for k, v in renamed.items() if k.startswith("grad.")})


if __name__ == "__main__":
    main()
