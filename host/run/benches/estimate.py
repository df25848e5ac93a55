"""What `fthost estimate` says of a run's memory beside what the run takes: the recipes, and ways of training of one of them.

    python host/run/benches/estimate.py MODEL_FOLDER [--steps 2] [--threads 2] [--only NAME ...] [--ours FTHOST] [--json FILE]

MODEL_FOLDER is SmolLM2-135M-Instruct's, which the recipes name; `embedded` runs on the model that the program carries. Each case
is a process of its own that takes `--steps` steps of the recipe and looks at the held-out rows after the last; the estimate is
asked with the same keys. `measured` is `peak_rss_bytes` of the run's summary, `ratio` the estimate over it. Bar: within 15 % of
what was measured. Exit code 1 where a case is not.

A run's first steps are compared: later ones add what the allocator can't use again, a few per cent.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "host/engine/benches"))
from peers import program, write  # noqa: E402: found by the line above

RECIPES = ROOT / "host/recipes"
BAR = 0.15
JSON, UNPACKED = "json-extraction/run", {"data.packing": False}
CASES = {
    "LoRA, packed (json-extraction)": (JSON, {}),
    "LoRA, unpacked": (JSON, UNPACKED),
    "LoRA, 4 micro-batches a step": (JSON, UNPACKED | {"train.micro_batch_size": 2, "train.gradient_accumulation_steps": 4}),
    "LoRA, blocks computed again": (JSON, {"train.activation_checkpointing": "block"}),
    "LoRA, 32 rows, blocks computed again": (JSON, {"train.micro_batch_size": 32, "train.activation_checkpointing": "block"}),
    "LoRA, 32 rows": (JSON, {"train.micro_batch_size": 32}),
    "LoRA, frozen bf16": (JSON, {"train.frozen_dtype": "bf16"}),
    "LoRA, nf4": (JSON, {"quant.nf4.block_size": 64}),
    "LoRA, nf4, frozen bf16, blocks computed again": (
        JSON, {"quant.nf4.block_size": 64, "train.frozen_dtype": "bf16", "train.activation_checkpointing": "block"}),
    "LoRA, int8": (JSON, {"quant.int8.skip_modules": []}),
    "LoRA, embedding and norms trained whole": (
        JSON, {"adapter": '[adapter.lora]\nrank = 8\nmodules_to_save = ["embed_tokens", "norm"]\n'}),
    "(IA)^3": (JSON, {"adapter": "[adapter.ia3]\n"}),
    "prompt tuning": (JSON, {"adapter": "[adapter.prompt_tuning]\nnum_virtual_tokens = 16\n"}),
    "prefix tuning": (JSON, {"adapter": "[adapter.prefix_tuning]\nnum_virtual_tokens = 16\n"}),
    "prefix tuning, projected": (
        JSON, {"adapter": "[adapter.prefix_tuning]\nnum_virtual_tokens = 16\nprefix_projection = true\n"}),
    "every weight": (JSON, {"adapter": None}),
    "every weight, paged": (JSON, {"adapter": None, "optimizer": "paged_adamw"}),
    "every weight, adamw8bit": (JSON, {"adapter": None, "optimizer": "adamw8bit"}),
    "every weight, gradient release, blocks computed again": (
        JSON, UNPACKED | {"adapter": None, "train.gradient_release": True, "train.max_grad_norm": 0,
                          "train.activation_checkpointing": "block"}),
    "every weight, gradient release, adamw8bit": (
        JSON, UNPACKED | {"adapter": None, "optimizer": "adamw8bit", "train.gradient_release": True, "train.max_grad_norm": 0}),
    "DPO (short-answers)": ("short-answers/run", {}),
    "DPO, every weight": ("short-answers/run", {"adapter": None}),
    "GRPO (addition)": ("addition/run", {}),
    "GRPO, two shots (addition)": ("addition/two_shot", {}),
    "PPO (addition)": ("addition/ppo", {}),
    "PPO, two shots (addition)": ("addition/ppo_two_shot", {}),
    "the embedded model (json-extraction)": ("json-extraction/embedded", {}),
}
"""Recipe and keys; `adapter` is what stands in the adapter's place, `optimizer` renames the optimizer's table."""


def run_file(recipe: str, keys: dict, folder: pathlib.Path) -> pathlib.Path:
    """The recipe with what no `--set` can change, its paths from the root of the file system."""
    file = RECIPES / f"{recipe}.toml"
    text = file.read_text(encoding="utf-8")
    absolute = lambda it: json.dumps(str(file.parent / it.group(1)))  # noqa: E731
    text = re.sub(r'"((?:\.\./)*[\w./-]*\.jsonl)"', absolute, text)
    if "adapter" in keys:
        text = re.sub(r"(?ms)^\[adapter\.lora\]\n.*?(?=^\[)", lambda _: keys["adapter"] or "", text)
    if "optimizer" in keys:
        text = text.replace("[optimizer.adamw]", f"[optimizer.{keys['optimizer']}]")
    changed = folder / "run.toml"
    changed.write_text(text, encoding="utf-8")
    return changed


def compared(name: str, fthost: str, arguments: argparse.Namespace) -> dict:
    """The estimate of a case and what it takes."""
    recipe, keys = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        file, out = run_file(recipe, keys, folder), folder / "out"
        given = {"train.steps": arguments.steps, "eval.before": False, "output.dir": str(out)}
        if recipe != "json-extraction/embedded":
            given["model.path"] = arguments.model
        given |= {key: value for key, value in keys.items() if "." in key}
        told = [it for key, value in given.items() for it in ("--set", f"{key}={json.dumps(value)}")]
        env = os.environ | {"RAYON_NUM_THREADS": str(arguments.threads)}
        estimate = subprocess.run([fthost, "estimate", file, "--json", *told], check=True, capture_output=True, text=True, env=env)
        run = subprocess.run([fthost, "run", file, "--quiet", *told], capture_output=True, text=True, env=env)
        if run.returncode != 0:
            sys.exit(f"`{name}` failed: {run.stderr}")
        summary = json.loads((out / "summary.json").read_text())
    estimate = json.loads(estimate.stdout)
    measured = summary["peak_rss_bytes"]
    return {"estimate": estimate, "measured": measured, "ratio": estimate["peak_rss_bytes"] / measured}


def main() -> None:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known.add_argument("model", type=lambda it: str(pathlib.Path(it).resolve()), help="the model's folder")
    known.add_argument("--steps", type=int, default=2)
    known.add_argument("--threads", type=int, default=2)
    known.add_argument("--only", nargs="+", default=list(CASES), help="cases whose names hold one of these texts")
    known.add_argument("--ours", help="our program, already built; otherwise cargo builds it")
    known.add_argument("--json", type=pathlib.Path, help="write what was found here as well")
    arguments = known.parse_args()
    fthost, found = arguments.ours or program(), {}
    print("| case | tokens | estimate, MiB | measured, MiB | ratio | within 15 % |\n|" + "---|" * 6, flush=True)
    for name in (it for it in CASES if any(text in it for text in arguments.only)):
        one = found[name] = compared(name, fthost, arguments)
        one["met"] = abs(one["ratio"] - 1) <= BAR
        estimate, measured = one["estimate"]["peak_rss_bytes"] / 2**20, one["measured"] / 2**20
        met = "yes" if one["met"] else "**no**"
        print(f"| {name} | {one['estimate']['tokens']} | {estimate:.0f} | {measured:.0f} | {one['ratio']:.3f} | {met} |", flush=True)
        # What was found is kept even where a later case takes the machine down.
        write(arguments.json, found)
    sys.exit(not all(it["met"] for it in found.values()))


if __name__ == "__main__":
    main()
