"""Supervised fine-tuning of a tiny random Llama with torch and PEFT: the loss curve ours is held to.

Versions: torch 2.x, transformers 5.23, peft 0.21 (printed into the golden).
Run:      python tests/golden/generate/train.py     (writes tests/golden/train/)

Float64 throughout, weights drawn in float32: what remains between this and ours is our f32 rounding.
Each optimizer step sums the token NLL of its micro-batches and divides by their supervised tokens; the last
step has one micro-batch instead of two. Sequences are run one by one, so nothing is padded or packed here.
"""
import json
import pathlib
import shutil

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).parent.parent / "train"
VOCAB, STEPS, WARMUP, CLIP, DECAY = 64, 8, 2, 0.5, 0.1
FORBIDDEN = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def model():
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.1,
    )
    return LlamaForCausalLM(config)


def batches():
    """[step][micro-batch][sequence] of input_ids and labels; a prompt of varied length is not supervised."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    steps = []
    for step in range(STEPS):
        micro = []
        for _ in range(1 if step == STEPS - 1 else 2):
            rows = []
            for _ in range(2):
                length = draw(4, 14)
                ids = [draw(0, VOCAB) for _ in range(length)]
                prompt = draw(0, length - 2)
                rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
            micro.append(rows)
        steps.append(micro)
    return steps


def nll(net, row):
    """Summed NLL, supervised tokens, summed entropy and correct predictions of one sequence."""
    logits = net(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
    labels = torch.tensor(row["labels"][1:])
    kept = labels != -100
    logp = torch.log_softmax(logits[kept], -1)
    loss = -logp.gather(1, labels[kept][:, None]).sum()
    entropy = -(logp.exp() * logp).sum()
    return loss, int(kept.sum()), float(entropy.detach()), int((logp.argmax(-1) == labels[kept]).sum())


def train(net, lr):
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decayed = set(get_parameter_names(net, [torch.nn.LayerNorm], FORBIDDEN))
    groups = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": DECAY},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([it for it in groups if it["params"]], lr=lr)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=WARMUP, num_training_steps=STEPS)
    curve = []
    for step in STEPS_DATA:
        results = [nll(net, row) for micro in step for row in micro]
        tokens = sum(it[1] for it in results)
        loss = sum(it[0] for it in results) / tokens
        loss.backward()
        rate = scheduler.get_last_lr()[0]
        norm = float(torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        curve.append({
            "loss": float(loss.detach()), "grad_norm": norm, "learning_rate": rate, "tokens": tokens,
            "entropy": sum(it[2] for it in results) / tokens,
            "mean_token_accuracy": sum(it[3] for it in results) / tokens,
        })
    return curve


def full():
    net = model()
    net.save_pretrained(OUT / "model")
    net = net.double()
    curve = train(net, 1e-2)
    save_file({k: p.detach().float().contiguous() for k, p in net.named_parameters()}, OUT / "full_final.safetensors")
    return curve


def lora():
    config = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    torch.manual_seed(13)
    net = peft.get_peft_model(model(), config)
    with torch.no_grad():  # PEFT's draw for `init_lora_weights=False` makes a loss too wild to compare
        for name, p in net.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * 0.1)
    net.save_pretrained(OUT / "adapter")
    net = net.double()
    curve = train(net, 1e-2)
    final = peft.get_peft_model_state_dict(net)
    save_file({k: p.detach().float().contiguous() for k, p in final.items()}, OUT / "adapter_final.safetensors")
    return curve


shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
STEPS_DATA = batches()
golden = {
    "versions": {it.__name__: it.__version__ for it in [torch, transformers, peft]},
    "learning_rate": 1e-2, "warmup_steps": WARMUP, "total_steps": STEPS, "max_grad_norm": CLIP,
    "weight_decay": DECAY, "steps": STEPS_DATA, "full": full(), "lora": lora(),
}
(OUT / "train.json").write_text(json.dumps(golden) + "\n")
(OUT / "adapter" / "README.md").unlink(missing_ok=True)
(OUT / "model" / "generation_config.json").unlink(missing_ok=True)
# PEFT keeps the targets as a set, whose order differs from run to run.
path = OUT / "adapter" / "adapter_config.json"
config = json.loads(path.read_text())
config["target_modules"] = sorted(config["target_modules"])
path.write_text(json.dumps(config, indent=2) + "\n")
