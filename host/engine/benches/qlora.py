"""QLoRA beside LoRA, both ours: memory, time, and what is learned.

    python host/engine/benches/qlora.py MODEL_FOLDER [--pairs 3] [--steps 4] [--threads 2] [--json FILE]

**Memory and time**, by the bench `sft_step`, on a model of Qwen2.5-0.5B's shape whose weights are random and stored in bf16
(made by `fthost model init` and `convert` in a temporary folder, which takes 3 GB): rank 8 on every linear, 2 rows of 256
tokens, blocks computed again in backward. In turns: `[quant.nf4]` with the other frozen matrices in bf16, all of them in bf16,
and all of them in f32. Bars: peak RSS at most 0.35 of f32's, and a step at most 1.25 times as long as bf16's.

**What is learned**, by `fthost run` on the model of MODEL_FOLDER: loss on 32 held-out rows after 40 steps of the recipe
`json-extraction`'s conversations, in 4 bits and in f32. Bar: they differ by 0.02 at most.

Exit code 1 where a bar is not met.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from against_trl import json_rows
from peers import alternate, bench_binary, last_line, measure, parser, print_table, program, write

SHAPE = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896,
    "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "tie_word_embeddings": True, "initializer_range": 0.02, "use_sliding_window": False,
}
STORED = {"NF4": ["--frozen-dtype", "bf16", "--quant", "nf4"], "bf16": ["--frozen-dtype", "bf16"], "f32": []}
TRAINED, HELD_OUT, LEARNING_STEPS = 160, 32, 40
BARS = {"rss": 0.35, "time": 1.25, "loss": 0.02}


def random_model(fthost: str, folder: pathlib.Path) -> str:
    """A model of the shape, in bf16."""
    shape, wide, narrow = folder / "shape", folder / "wide", folder / "narrow"
    shape.mkdir()
    (shape / "config.json").write_text(json.dumps(SHAPE))
    subprocess.run([fthost, "model", "init", shape, "--out", wide], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([fthost, "model", "convert", wide, "--out", narrow, "--dtype", "bf16"], check=True, stdout=subprocess.DEVNULL)
    (wide / "model.safetensors").unlink()
    return str(narrow)


def steps(arguments: argparse.Namespace, bench: str, model: str) -> dict:
    """All ways in turns, and the ratios that bars are set for."""
    shape = ["--rank", 8, "--batch", 2, "--length", 256, "--steps", arguments.steps, "--activation-checkpointing", "block"]
    command = [bench, model, *map(str, shape)]
    sides = {name: lambda it=it: measure([*command, *it], arguments.threads, last_line) for name, it in STORED.items()}
    results = alternate(sides, arguments.pairs)
    found = {}
    for other in ("f32", "bf16"):
        pair = {"NF4": results["NF4"], other: results[other]}
        found[other] = print_table(pair, "Qwen2.5-0.5B's shape, rank 8, 2 x 256 tokens, blocks computed again")
    return {"measurements": results, "compared": found}


def learned(arguments: argparse.Namespace, fthost: str, folder: pathlib.Path) -> dict[str, float]:
    """Held-out loss after the same steps."""
    rows = json_rows(TRAINED + HELD_OUT)
    for name, part in (("train", rows[:TRAINED]), ("held_out", rows[TRAINED:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(it) + "\n" for it in part), encoding="utf-8")
    found = {}
    for name, quant in (("NF4", "[quant.nf4]"), ("f32", "")):
        out = folder / name
        (folder / "run.toml").write_text(f"""
[model]
path = {json.dumps(arguments.model)}
[data]
files = ["train.jsonl"]
held_out.files = ["held_out.jsonl"]
[adapter.lora]
rank = 8
target_modules = "all-linear"
{quant}
[optimizer.adamw]
learning_rate = 5e-4
[train]
steps = {LEARNING_STEPS}
micro_batch_size = 8
[output]
dir = {json.dumps(str(out))}
""")
        subprocess.run([fthost, "run", folder / "run.toml"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        losses = [it["eval_loss"] for it in lines if "eval_loss" in it]
        print(f"{name}: held-out loss {losses[0]:.4f} before, {losses[-1]:.4f} after {LEARNING_STEPS} steps", flush=True)
        found[name] = losses[-1]
    return found


def main() -> None:
    arguments = parser(__doc__, pairs=3, steps=4).parse_args()
    fthost = arguments.ours or program()
    bench = bench_binary("sft_step")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        losses = learned(arguments, fthost, folder)
        found = steps(arguments, bench, random_model(fthost, folder))
    figures = {
        "rss": found["compared"]["f32"]["peak_rss_gib"]["ratio"],
        "time": 1 / found["compared"]["bf16"]["tokens_per_second"]["ratio"],
        "loss": abs(losses["NF4"] - losses["f32"]),
    }
    for name, bar in BARS.items():
        print(f"{name}: {figures[name]:.3f}, at most {bar}: {'met' if figures[name] <= bar else 'NOT met'}")
    write(arguments.json, found | {"losses": losses, "figures": figures})
    sys.exit(any(figures[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    main()
