"""Tiny models of tests/golden/families and tests/golden/llama as GGUF files, as llama.cpp's converter writes them.

Written with gguf 0.19, torch 2.15, transformers 5.24, safetensors 0.8:
    python tests/golden/generate/gguf_families.py
Writes tests/golden/gguf/families/<case>.gguf, and cases.json: of each case the folder it was made of and what in that
folder's config.json is otherwise, because a GGUF has no way to say what the folder says.

Names of tensors are those of the package gguf (`get_tensor_name_map`); keys and what is done to weights follow
`convert_hf_to_gguf.py`: rows of queries and keys are reordered for `llama` and `smollm3`, norms of Gemma are stored plus
one, linears of GPT-2 are turned, experts are stacked. Matrices are F16, all else and routers and positions F32.

Where transformers reads the architecture itself (`from_pretrained(gguf_file=...)`), its logits must be those of the
source with its matrices rounded to F16, or nothing is written.
"""
import json
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

GOLDEN = Path(__file__).resolve().parents[1]
ROOT = GOLDEN / "gguf/families"
# Case: architecture, folder, what a GGUF can't say otherwise, whether transformers reads the architecture.
CASES = {
    "llama_linear": ("llama", "llama/rope_linear", {}, False),
    "llama_bias": ("llama", "llama/bias_untied", {}, False),
    "llama_yarn": ("llama", "families/llama_yarn", {}, False),
    "mistral": ("llama", "families/mistral_full", {"architectures": ["LlamaForCausalLM"]}, True),
    "mixtral": ("llama", "families/mixtral", {}, False),
    "qwen2": ("qwen2", "families/qwen2", {}, True),
    "qwen3": ("qwen3", "families/qwen3", {}, True),
    "qwen3_bias": ("qwen3", "families/qwen3_untied", {}, False),
    "qwen3moe": ("qwen3moe", "families/qwen3_moe", {}, True),
    "gemma": ("gemma", "families/gemma", {}, False),
    "gemma2": ("gemma2", "families/gemma2", {"query_pre_attn_scalar": 8}, True),
    "gemma3": ("gemma3", "families/gemma3", {"query_pre_attn_scalar": 8}, True),
    "phi3": ("phi3", "families/phi3", {}, True),
    "phi3_long": ("phi3", "families/phi3_long", {}, True),
    "gpt2": ("gpt2", "families/gpt2", {}, True),
    "olmo2": ("olmo2", "families/olmo2", {}, False),
    "smollm3": ("smollm3", "families/smollm3", {"no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0]}, False),
}
F32 = ("ffn_gate_inp", "position_embd")


def permute(weight, heads):
    """`LlamaModel.permute`."""
    return (weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
            .swapaxes(1, 2).reshape(weight.shape))


def with_experts(tensors):
    """Experts one by one become one tensor a kind."""
    found = {}
    for name, weight in tensors.items():
        if ".experts." not in name:
            found[name] = weight
            continue
        head, rest = name.split(".experts.")
        index, rest = rest.split(".", 1)
        found.setdefault(f"{head}.experts.{rest}", {})[int(index)] = weight
    return {name: np.stack([it[i] for i in range(len(it))]) if isinstance(it, dict) else it
            for name, it in found.items()}


def metadata(writer, architecture, config):
    """`TextModel.set_gguf_parameters` and what the classes of llama.cpp's converter add to it."""
    get = lambda *keys: next((config[key] for key in keys if config.get(key) is not None), None)
    hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
    writer.add_block_count(get("num_hidden_layers", "n_layer"))
    writer.add_context_length(get("max_position_embeddings", "n_positions"))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner") or 4 * hidden)
    writer.add_head_count(heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    head = get("head_dim")
    if head is not None:
        writer.add_key_length(head)
        writer.add_value_length(head)
    rope = config["rope_parameters"]
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    if architecture in ("llama", "smollm3"):
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head or hidden // heads)
    if architecture == "phi3":
        partial = rope.get("partial_rotary_factor", 1.0)
        original = get("original_max_position_embeddings") or config["max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_dimension_count(int(partial * hidden) // heads)
        writer.add_sliding_window(config["sliding_window"] or 0)
        if rope["rope_type"] == "longrope":
            grown = config["max_position_embeddings"] / original
            writer.add_rope_scaling_attn_factors(np.sqrt(1 + np.log(grown) / np.log(original)))
            for name, key in [("long", "long_factor"), ("short", "short_factor")]:
                writer.add_tensor(f"rope_factors_{name}.weight", np.array(rope[key], dtype=np.float32))
    elif rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if architecture not in ("gemma", "gemma2"):
        writer.add_rope_freq_base(rope["rope_theta"])
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "gemma3":
        writer.add_rope_freq_base_swa(local["rope_theta"])
        # llama.cpp reads it, its converter leaves it out: of published models five of six layers slide.
        writer.add_sliding_window_pattern([it == "sliding_attention" for it in config["layer_types"]])
    experts = get("num_local_experts", "num_experts")
    if experts is not None:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if architecture == "qwen3moe":
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def write(case):
    architecture, folder, changes, known = CASES[case]
    config = {**json.loads((GOLDEN / folder / "config.json").read_text()), **changes}
    tensors = load_file(GOLDEN / folder / "model.safetensors")
    arch = next(it for it, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    layers = config.get("num_hidden_layers") or config["n_layer"]
    names = gguf.get_tensor_name_map(arch, layers)
    path = ROOT / f"{case}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    metadata(writer, architecture, config)
    rounded = {}
    for name, weight in with_experts(tensors).items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target, name
        stored = weight
        if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            stored = stored.T
        if architecture in ("llama", "smollm3"):
            if ".q_proj." in name:
                stored = permute(stored, config["num_attention_heads"])
            if ".k_proj." in name:
                stored = permute(stored, config["num_key_value_heads"])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            stored = stored + np.float32(1)
        matrix = stored.ndim > 1 and not any(it in target for it in F32)
        stored = np.ascontiguousarray(stored.astype(np.float16 if matrix else np.float32))
        writer.add_tensor(target, stored)
        rounded[name] = matrix
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if known:
        check(case, architecture, folder, changes)


def check(case, architecture, folder, changes):
    """transformers' own reader gives the source's logits."""
    def config():
        said = {**json.loads((GOLDEN / folder / "config.json").read_text()), **changes}
        name = said["architectures"][0].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
        made = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
        return made.from_dict({key: it for key, it in said.items() if key != "model_type"})

    how = dict(dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    model = getattr(transformers, config().architectures[0])
    source = model.from_pretrained(GOLDEN / folder, config=config(), **how).eval()
    with torch.no_grad():
        for name, it in source.named_parameters():
            if it.ndim > 1 and "mlp.gate." not in name and "wpe" not in name:
                it.copy_(it.half().float())
            elif architecture.startswith("gemma") and "norm" in name:
                it.copy_((it + 1) - 1)
    read = model.from_pretrained(ROOT, gguf_file=f"{case}.gguf", config=config(), **how).eval()
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        off = (source(ids).logits - read(ids).logits).abs().max().item()
    print(f"{case}: transformers' reading is off by {off:.2g}")
    assert off < 1e-6, case


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ROOT.mkdir(exist_ok=True, parents=True)
    for case in CASES:
        write(case)
    (ROOT / "cases.json").write_text(json.dumps(
        {case: {"folder": folder, "changes": changes} for case, (_, folder, changes, _) in CASES.items()}, indent=1) + "\n")


main()
