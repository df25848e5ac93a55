"""A tiny Llama as bitsandbytes stores it in 4 bits (<https://arxiv.org/abs/2305.14314>) and in 8 (<https://arxiv.org/abs/2208.07339>).

Written with torch 2.15, transformers 5.24, bitsandbytes 0.50.2 on a CPU:
    python tests/golden/generate/quant.py
Writes tests/golden/quant/model, a Llama in f32, and tests/golden/quant/{nf4,fp4,int8}, the same model as `save_pretrained` writes it
after loading it in fewer bits: nf4 with double quantisation and every linear but `down_proj` of the first layer, fp4 without
and with that one too. Beside the weights: `golden.safetensors` with input_ids [T], logits [T, V], loss [1]; not for
int8, whose method rounds what goes in as well.
"""
import json, shutil

import torch
from llama import ROOT
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM


def main():
    torch.set_num_threads(1)
    torch.manual_seed(31)
    base = ROOT / "quant" / "model"
    # Widths are multiples of 64: on AVX-512, bitsandbytes 0.50.2 dequantises other multiples of 32 with the wrong factors.
    shape = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(shape)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in name else 0.1 * torch.randn_like(p))
    shutil.rmtree(ROOT / "quant", ignore_errors=True)
    model.save_pretrained(base)
    cases = {
        "nf4": dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                    llm_int8_skip_modules=["lm_head", "model.layers.0.mlp.down_proj"]),
        "fp4": dict(bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False),
        "int8": None,
    }
    for case, options in cases.items():
        config = BitsAndBytesConfig(load_in_8bit=True)
        if options:
            config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **options)
        packed = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, quantization_config=config, device_map="cpu"
        )
        packed.eval()
        folder = ROOT / "quant" / case
        packed.save_pretrained(folder)
        if case == "int8":
            continue
        ids = torch.randint(0, 96, (1, 20))
        out = packed(input_ids=ids, labels=ids)
        numbers = {"input_ids": ids[0].float(), "logits": out.logits[0].detach(), "loss": out.loss.detach().reshape(1)}
        save_file(numbers, folder / "golden.safetensors")
    for config in (ROOT / "quant").glob("*/config.json"):
        value = json.loads(config.read_text())
        value.pop("_name_or_path", None)
        config.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    for extra in (ROOT / "quant").glob("*/generation_config.json"):
        extra.unlink()


if __name__ == "__main__":
    main()
