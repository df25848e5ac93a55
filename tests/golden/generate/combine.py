"""PEFT adapters of the tiny tied Llama that `llama.py` writes, and what PEFT's `add_weighted_adapter` makes of them.

Written with torch 2.15, transformers 5.24, peft 0.21:
    python tests/golden/generate/combine.py
Writes tests/golden/combine/<adapter>/, PEFT folders: `first`, `second` and `third` of rank 4 on different linears (`third`
with rsLoRA), `wide` of rank 6, 3 and 5 by patterns. Beside them, `<case>.safetensors` for each case: input_ids [T], logits
[T, V] with the combined adapter, and what was combined: of `slerp`, the change of each weight by its path, [out, in],
found in float64 from dense matrices; of the others `<path>.lora_A.weight` and `B`, without the zeros with which PEFT fills
up ranks that an adapter lacks. `dare.safetensors` holds three tensors, the masks that torch drew for them with density
0.6, and what PEFT's `dare_linear` and `dare_ties` made of them with weights 0.7, -0.4, 0.5.
"""
import shutil

import torch
from llama import ROOT, save_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import merge_utils
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

FOLDER = ROOT / "combine"
BASE = "gqa_tied"
ADAPTERS = {
    "first": dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"]),
    "second": dict(r=4, lora_alpha=10, target_modules=["q_proj", "v_proj", "up_proj"]),
    "third": dict(r=4, lora_alpha=3, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True),
    "wide": dict(r=6, lora_alpha=9, target_modules=["q_proj", "v_proj", "gate_proj"],
                 rank_pattern={"v_proj": 3, "layers.1.mlp.gate_proj": 5}, alpha_pattern={"v_proj": 4}),
}
CASES = {
    "linear": dict(adapters=["first", "second", "third"], weights=[0.7, -0.4, 0.5], combination_type="linear"),
    "ties_total": dict(adapters=["first", "second", "third"], weights=[0.7, -0.4, 0.5], combination_type="ties",
                       density=0.5),
    "ties_frequency": dict(adapters=["first", "second", "third"], weights=[0.7, -0.4, 0.5], combination_type="ties",
                           density=0.5, majority_sign_method="frequency"),
    "cat": dict(adapters=["first", "second", "wide"], weights=[0.7, -0.4, 0.5], combination_type="cat"),
}
T = 0.3


def base():
    return LlamaForCausalLM.from_pretrained(ROOT / "llama" / BASE, dtype=torch.float32).eval()


def write_adapters():
    for name, options in ADAPTERS.items():
        model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "lora_" in key:
                    p.copy_(torch.randn_like(p) * 0.1)
        save_adapter(model, FOLDER / name, BASE)


def loaded(names):
    model = PeftModel.from_pretrained(base(), FOLDER / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(FOLDER / name, adapter_name=name)
    return model.eval()


def linears(model, adapter):
    """The adapted linears by the path that the base gives them."""
    for path, module in model.base_model.model.named_modules():
        if adapter in getattr(module, "lora_A", {}):
            yield path, module


def write_case(case, options, ids):
    model = loaded(options["adapters"])
    model.add_weighted_adapter(adapter_name="combined", **options)
    model.set_adapter("combined")
    tensors = {"input_ids": ids.to(torch.int32)}
    for path, module in linears(model, "combined"):
        assert module.scaling["combined"] == 1
        rank = max(module.r[it] for it in options["adapters"] if it in module.r)
        if options["combination_type"] == "cat":
            rank = sum(module.r[it] for it in options["adapters"] if it in module.r)
        a, b = (getattr(module, f"lora_{it}")["combined"].weight.detach() for it in "AB")
        assert not a[rank:].any() and not b[:, rank:].any()
        tensors[f"{path}.lora_A.weight"] = a[:rank].clone()
        tensors[f"{path}.lora_B.weight"] = b[:, :rank].clone()
    with torch.no_grad():
        tensors["logits"] = model(input_ids=ids[None]).logits[0]
    save_file(tensors, FOLDER / f"{case}.safetensors")


def slerp(t, one, two):
    """Shoemake's formula on flat vectors; no relative of what is tested but for the formula."""
    flat = [it.flatten() for it in (one, two)]
    if not all(it.any() for it in flat):
        return (1 - t) * one + t * two
    cosine = torch.nn.functional.cosine_similarity(*flat, dim=0)
    assert cosine.abs() < 0.9995
    angle = torch.acos(cosine)
    return torch.sin((1 - t) * angle) / torch.sin(angle) * one + torch.sin(t * angle) / torch.sin(angle) * two


def write_slerp(ids):
    """Of adapters with different ranks, factors and linears."""
    model = loaded(["first", "wide"])
    changes = {}
    for path, module in model.base_model.model.named_modules():
        ranked = getattr(module, "r", None)
        if not isinstance(ranked, dict) or not ranked:
            continue
        ends = []
        for name in ("first", "wide"):
            change = torch.zeros(module.out_features, module.in_features, dtype=torch.float64)
            if name in module.lora_A:
                a, b = (getattr(module, f"lora_{it}")[name].weight.detach().double() for it in "AB")
                change += module.scaling[name] * (b @ a)
            ends.append(change)
        changes[path] = slerp(T, *ends)
    model = base()
    tensors = {"input_ids": ids.to(torch.int32)}
    with torch.no_grad():
        for path, change in changes.items():
            model.get_submodule(path).weight += change.float()
            tensors[path] = change.float().contiguous()
        tensors["logits"] = model(input_ids=ids[None]).logits[0]
    save_file(tensors, FOLDER / "slerp.safetensors")


def write_dare():
    tensors = [torch.randn(300) for _ in range(3)]
    weights = torch.tensor([0.7, -0.4, 0.5])
    drawn, masks = torch.bernoulli, []
    torch.bernoulli = lambda of: masks.append(drawn(of)) or masks[-1]
    linear = merge_utils.dare_linear(tensors, weights, 0.6)
    # The same masks again.
    left = iter(masks)
    torch.bernoulli = lambda of: next(left)
    ties = merge_utils.dare_ties(tensors, weights, 0.6)
    torch.bernoulli = drawn
    named = {"dare_linear": linear, "dare_ties": ties}
    for index, (tensor, mask) in enumerate(zip(tensors, masks)):
        named[f"tensor.{index}"], named[f"mask.{index}"] = tensor, mask
    save_file(named, FOLDER / "dare.safetensors")


def rslora_first():
    """Why rsLoRA's factors are not compared where such an adapter is the first: PEFT takes over `use_rslora`, and what it
    made with a factor of 1 in mind is used with the root of the rank."""
    model = loaded(["third", "first"])
    model.add_weighted_adapter(["third", "first"], [1.0, 1.0], "combined", combination_type="linear")
    assert {module.scaling["combined"] for _, module in linears(model, "combined")} == {2.0}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(40)
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_adapters()
    ids = torch.randint(0, 64, (12,))
    for case, options in CASES.items():
        write_case(case, options, ids)
    write_slerp(ids)
    write_dare()
    rslora_first()


if __name__ == "__main__":
    main()
