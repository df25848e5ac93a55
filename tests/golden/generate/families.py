"""Tiny random models of many families, their logits and gradients, and PEFT adapters on four of them.

Written with torch 2.15, transformers 5.24, peft 0.21:
    python tests/golden/generate/families.py
Writes one Hugging Face folder a case under tests/golden/families/ with `golden.safetensors` beside the weights:
    input_ids [T], logits [T, V], loss [1] (mean over the shifted targets of the one sequence)
and, for the cases in GRADIENTS (mistral, qwen2, qwen3, gemma, gemma2, gemma3, phi3, phi3_long, llama_yarn, olmo2,
smollm3, gpt2, qwen3_moe, mixtral), grad.<parameter> for every parameter, named and shaped as in model.safetensors:
transformers holds experts fused, `[experts, 2 * width, hidden]`, and saves them one by one, so do the gradients.
`config_v4.json` is the same configuration in the keys that transformers 4 wrote and published models still have.
tests/golden/families/<case>_lora/ holds a PEFT folder, its logits, loss and the gradients of A and B. `all-linear`
on a mixture adapts router and experts besides the attention; PEFT keeps all experts of a layer in one pair:
    mlp.experts.base_layer.lora_{A,B}  gate_up_proj, rank 8 and alpha 16 by `rank_pattern` and `alpha_pattern`
    mlp.experts.lora_{A,B}             down_proj
    A [experts * r, in]: row e * r + i is rank i of expert e;  B [out, r * experts]: column i * experts + e is.
What a case is there for must move its logits, or nothing is written: each entry of `moves` (keys of the configuration,
or a change of the built model) is undone on the same weights and compared.
"""
import copy, json, shutil, zlib
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

ROOT = Path(__file__).resolve().parents[1] / "families"
TOKENS, VOCAB, WINDOW = 12, 64, 5
TINY = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, pad_token_id=None, bos_token_id=1,
            eos_token_id=2)
DEEP = dict(TINY, num_hidden_layers=4, intermediate_size=24)
GRADIENTS = {"mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "phi3_long", "llama_yarn", "olmo2",
             "smollm3", "gpt2", "qwen3_moe", "mixtral"}
ADAPTERS = ["phi3", "gpt2", "qwen3_moe", "mixtral"]


def rope(rope_type="default", theta=1e4, **keys):
    return dict(rope_type=rope_type, rope_theta=theta, **keys)


def no_query_key_norm(model):
    for layer in model.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()


def no_bias(model):
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.zero_()


def no_embedding_scale(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


def no_one_in_norms(model):
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data.sub_(1.0)


def no_positions(model):
    model.transformer.wpe.weight.data.zero_()


def long_rope(original, **keys):
    """Phi-4-mini's: the long factors where the sequence is longer than `original`, a scale of cos and sin in both."""
    return dict(tie_word_embeddings=True, original_max_position_embeddings=original,
                rope_parameters=rope("longrope", partial_rotary_factor=0.75, **{
                    "short_factor": [1.0, 1.25, 1.5], "long_factor": [1.0, 3.0, 9.0], **keys}))


def whole_long_rope(original, **keys):
    """Of heads that are rotated whole, as in Phi-3-mini-128k."""
    return dict(original_max_position_embeddings=original, rope_parameters=rope("longrope", **{
        "short_factor": [1.0, 1.25, 1.5, 2.0], "long_factor": [1.0, 3.0, 9.0, 4.0], "factor": 4.0, **keys}))


YARN = dict(factor=4.0, original_max_position_embeddings=16, beta_fast=1.5, beta_slow=0.5)
GLOBAL, LOCAL = rope("linear", 1e6, factor=2.0), rope(theta=1e4)
# Class, configuration, what moves the logits, what must not.
CASES = {
    "mistral": ("Mistral", dict(TINY, sliding_window=WINDOW), [dict(sliding_window=None), dict(sliding_window=6)]),
    "mistral_full": ("Mistral", dict(TINY, sliding_window=None, head_dim=16), [dict(sliding_window=WINDOW)]),
    "qwen2": ("Qwen2", dict(TINY, tie_word_embeddings=True), [
        no_bias, dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0)]),
    "qwen2_window": ("Qwen2", dict(TINY, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1), [
        dict(use_sliding_window=False), dict(max_window_layers=0)]),
    "qwen3": ("Qwen3", dict(TINY, tie_word_embeddings=True, head_dim=16), [no_query_key_norm]),
    "qwen3_untied": ("Qwen3", dict(TINY, attention_bias=True, head_dim=8), [no_query_key_norm, no_bias]),
    "gemma": ("Gemma", dict(TINY, head_dim=16), [no_embedding_scale, no_one_in_norms, dict(hidden_act="silu")]),
    "gemma2": ("Gemma2", dict(DEEP, head_dim=8, query_pre_attn_scalar=5, sliding_window=WINDOW,
                              attn_logit_softcapping=5.0, final_logit_softcapping=3.0), [
        dict(attn_logit_softcapping=None), dict(final_logit_softcapping=None), dict(query_pre_attn_scalar=8),
        dict(sliding_window=64), dict(layer_types=["full_attention", "sliding_attention"] * 2), no_embedding_scale,
        no_one_in_norms]),
    "gemma3": ("Gemma3", dict(DEEP, head_dim=8, query_pre_attn_scalar=12, sliding_window=WINDOW,
                              layer_types=["sliding_attention", "sliding_attention", "full_attention",
                                           "sliding_attention"],
                              rope_parameters=dict(full_attention=GLOBAL, sliding_attention=LOCAL)), [
        dict(query_pre_attn_scalar=8), dict(sliding_window=64), no_query_key_norm, no_embedding_scale, no_one_in_norms,
        dict(rope_parameters=dict(full_attention=rope(theta=1e6), sliding_attention=LOCAL)),
        dict(rope_parameters=dict(full_attention=GLOBAL, sliding_attention=rope(theta=1e6))),
        dict(rope_parameters=dict(full_attention=dict(GLOBAL, rope_theta=1e4), sliding_attention=LOCAL))]),
    "phi3": ("Phi3", dict(TINY, sliding_window=WINDOW), [dict(sliding_window=None)]),
    "phi3_long": ("Phi3", dict(TINY, **long_rope(8)), [
        dict(rope_parameters=rope(partial_rotary_factor=0.75)), dict(rope_parameters=rope()),
        long_rope(8, attention_factor=1.0), long_rope(8, long_factor=[1.0, 1.25, 1.5])],
        [long_rope(8, short_factor=[1.0, 3.0, 9.0])]),
    "phi3_short": ("Phi3", dict(TINY, **long_rope(16)), [
        dict(rope_parameters=rope(partial_rotary_factor=0.75)), dict(rope_parameters=rope()),
        long_rope(16, attention_factor=1.0), long_rope(16, short_factor=[1.0, 3.0, 9.0])],
        [long_rope(16, long_factor=[1.0, 1.25, 1.5])]),
    "llama_long": ("Llama", dict(TINY, **whole_long_rope(8)), [
        dict(rope_parameters=rope()), whole_long_rope(8, long_factor=[1.0, 1.25, 1.5, 2.0])],
        [whole_long_rope(8, short_factor=[1.0, 3.0, 9.0, 4.0])]),
    "llama_yarn": ("Llama", dict(TINY, head_dim=16, rope_parameters=rope("yarn", 10.0, **YARN)), [
        dict(rope_parameters=rope(theta=10.0)),
        dict(rope_parameters=rope("yarn", 10.0, **YARN, attention_factor=1.0)),
        dict(rope_parameters=rope("yarn", 10.0, **dict(YARN, beta_fast=32, beta_slow=1))),
        dict(rope_parameters=rope("yarn", 10.0, **YARN, truncate=False))]),
    "olmo2": ("Olmo2", TINY, [no_query_key_norm]),
    "smollm3": ("SmolLM3", dict(DEEP, no_rope_layer_interval=2, rope_parameters=rope(theta=1e4)), [
        dict(no_rope_layers=[1] * 4), dict(no_rope_layers=[0, 1, 0, 1])]),
    "gpt2": ("GPT2", dict(vocab_size=VOCAB, n_positions=64, n_embd=32, n_head=4, n_layer=2, initializer_range=0.2,
                          bos_token_id=1, eos_token_id=2), [
        no_bias, no_positions, dict(scale_attn_weights=False), dict(scale_attn_by_inverse_layer_idx=True),
        dict(activation_function="silu")]),
    "qwen3_moe": ("Qwen3Moe", dict(TINY, head_dim=16, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2,
                                   norm_topk_prob=True, decoder_sparse_step=1, rms_norm_eps=1e-6), [
        dict(norm_topk_prob=False), dict(num_experts_per_tok=1), no_query_key_norm]),
    "mixtral": ("Mixtral", dict(TINY, intermediate_size=16, num_local_experts=4, num_experts_per_tok=2), [
        dict(num_experts_per_tok=1)]),
}
# Added to a seed where chance left an expert without a token.
RESEED = {"qwen3_moe_lora": 1}
# Written over what transformers saves: it drops the window that `use_sliding_window` = false leaves unused, which
# published models of Qwen 2 have.
ON_DISK = {"qwen2": dict(sliding_window=WINDOW)}
# Keys of published models that transformers 5 spells otherwise or leaves out.
TIED_BY_DEFAULT = {"gemma", "gemma2", "gemma3_text", "smollm3", "gpt2"}
V4_ONLY = {"gemma": dict(hidden_act="gelu", hidden_activation="gelu_pytorch_tanh"),
           "gemma2": dict(hidden_act="gelu_pytorch_tanh"), "gemma3_text": dict(sliding_window_pattern=3)}


def classes(name):
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    config = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    return getattr(transformers, name + head), getattr(transformers, config)


def build(case, changes=None, weights=None):
    model_class, config_class = classes(CASES[case][0])
    keys = copy.deepcopy({**CASES[case][1], **(changes or {})})
    model = model_class(config_class(**keys, attn_implementation="eager", experts_implementation="eager")).eval()
    if weights is not None:
        model.load_state_dict(weights)
    return model


def randomise(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or ".ln_" in name and name.endswith("weight"):
                p.add_(torch.randn_like(p) * 0.1)
            elif name.endswith("bias"):
                p.copy_(torch.randn_like(p) * 0.1)


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0]


def watch_routers(model):
    """Every expert serves, and no token's choice is so narrow that rounding could turn it."""
    def look(module, _, output):
        chances = output[0].softmax(-1).sort(-1, descending=True).values
        margin = (chances[:, module.top_k - 1] - chances[:, module.top_k]).min().item()
        assert margin > 1e-4, f"a choice of experts is decided by {margin}"
        assert output[2].unique().numel() == module.num_experts, "an expert is never chosen"
    return [m.register_forward_hook(look) for m in model.modules() if type(m).__name__.endswith("TopKRouter")]


def numbers(model, ids, trained):
    hooks = watch_routers(model)
    model.zero_grad()
    out = model(input_ids=ids[None], labels=ids[None])
    out.loss.backward()
    for hook in hooks:
        hook.remove()
    tensors = {"input_ids": ids.to(torch.int32), "logits": out.logits[0].detach().clone(),
               "loss": out.loss.detach().reshape(1)}
    assert all(it.isfinite().all() for it in tensors.values())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if trained(name)}
    for name, gradient in gradients.items():
        assert gradient.isfinite().all() and gradient.abs().max() > 1e-6, f"no gradient reaches {name}"
    return tensors, gradients


def distance(model, ids, expected):
    return (logits(model, ids) - expected).abs().max().item()


def check_moves(case, model, ids, expected):
    """What the case is there for is what it computes."""
    for change in CASES[case][2]:
        changed = build(case, None if callable(change) else change, model.state_dict())
        if callable(change):
            change(changed)
        moved = distance(changed, ids, expected)
        print(f"{case}: {moved:.3g} with {change.__name__ if callable(change) else change}")
        assert moved > 1e-3, f"{case}: {change} changes nothing"
    for change in CASES[case][3] if len(CASES[case]) > 3 else []:
        assert distance(build(case, change, model.state_dict()), ids, expected) == 0.0, f"{case}: {change} matters"


def as_v4(config):
    """The keys that transformers 4 wrote."""
    old = dict(config)
    kind = old["model_type"]
    for key in ["layer_types", "_sliding_window_pattern", "transformers_version"]:
        old.pop(key, None)
    old["torch_dtype"] = old.pop("dtype")
    parameters = old.pop("rope_parameters", None)
    if parameters is not None:
        if "full_attention" in parameters:
            old["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
            parameters = parameters["full_attention"]
        scaling = dict(parameters)
        old["rope_theta"] = scaling.pop("rope_theta")
        rope_type = scaling.pop("rope_type")
        if kind == "phi3":
            old["partial_rotary_factor"] = scaling.pop("partial_rotary_factor")
            scaling.pop("original_max_position_embeddings", None)
        named = {"type" if kind == "phi3" else "rope_type": rope_type, **scaling}
        old["rope_scaling"] = None if rope_type == "default" else named
    if kind == "qwen3_moe":
        old["num_experts"] = old.pop("num_local_experts")
    if kind in TIED_BY_DEFAULT:
        assert old.pop("tie_word_embeddings")
    return {**old, **V4_ONLY.get(kind, {})}


def seed(name):
    torch.manual_seed(zlib.crc32(name.encode()) + RESEED.get(name, 0))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_case(case):
    seed(case)
    folder = ROOT / case
    shutil.rmtree(folder, ignore_errors=True)
    model = build(case)
    randomise(model)
    ids = torch.randint(0, VOCAB, (TOKENS,))
    expected = logits(model, ids)
    check_moves(case, model, ids, expected)

    model.save_pretrained(folder)
    saved = {**json.loads((folder / "config.json").read_text()), **ON_DISK.get(case, {})}
    write_json(folder / "config.json", saved)
    write_json(folder / "config_v4.json", as_v4(saved))
    model_class, config_class = classes(CASES[case][0])
    for file in ["config.json", "config_v4.json"]:
        config = config_class.from_dict(json.loads((folder / file).read_text()))
        read = model_class.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager",
                                           experts_implementation="eager").eval()
        assert distance(read, ids, expected) == 0.0, f"{case}: {file} is another model"

    tensors, gradients = numbers(model, ids, lambda _: case in GRADIENTS)
    if gradients:
        gradients = {k: v.contiguous() for k, v in revert_weight_conversion(model, gradients).items()}
        with safe_open(folder / "model.safetensors", "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
        assert {k: list(v.shape) for k, v in gradients.items()} == shapes
    save_file({**tensors, **{f"grad.{k}": v for k, v in gradients.items()}}, folder / "golden.safetensors")


def write_adapter(case):
    seed(f"{case}_lora")
    base, folder = ROOT / case, ROOT / f"{case}_lora"
    shutil.rmtree(folder, ignore_errors=True)

    def load():
        return classes(CASES[case][0])[0].from_pretrained(
            base, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval()

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", fan_in_fan_out=case == "gpt2",
                        task_type="CAUSAL_LM")
    model = get_peft_model(load(), config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * 0.1)
    model.save_pretrained(folder)
    adapter = json.loads((folder / "adapter_config.json").read_text())
    adapter["base_model_name_or_path"] = case
    for key in ["target_modules", "target_parameters"]:
        adapter[key] = adapter[key] and sorted(adapter[key])
    write_json(folder / "adapter_config.json", adapter)
    (folder / "README.md").unlink(missing_ok=True)
    ids = torch.randint(0, VOCAB, (TOKENS,))
    tensors, gradients = numbers(model, ids, lambda name: "lora_" in name)
    assert distance(PeftModel.from_pretrained(load(), folder).eval(), ids, tensors["logits"]) == 0.0
    moved = distance(load(), ids, tensors["logits"])
    print(f"{case}_lora: {moved:.3g} without it")
    assert moved > 1e-2
    gradients = {f"grad.{k.replace('.default.', '.')}": v for k, v in gradients.items()}
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert {f"grad.{name}" for name in file.keys()} == set(gradients)
    save_file({**tensors, **gradients}, folder / "golden.safetensors")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case in CASES:
        write_case(case)
    for case in ADAPTERS:
        write_adapter(case)


if __name__ == "__main__":
    main()
