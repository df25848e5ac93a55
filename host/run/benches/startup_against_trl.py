"""From the command to the first optimizer step, ours and TRL's SFTTrainer in turns, both with warm caches.

    python host/run/benches/startup_against_trl.py MODEL_FOLDER [--pairs 5] [--threads 2] [--fthost BINARY] [--json FILE]

The Python that runs this needs torch, transformers, peft, trl and datasets. Both sides train LoRA of rank 8 on every
linear layer, 8 rows a step, on the rows of `host/recipes/json-extraction/train.jsonl`: ours by the recipe as it stands,
with its plugins (which make a quarter more rows) but no evaluation before the first step; TRL on the same prompts and
answers, prepared by `datasets`, whose cache keeps the tokenised rows between runs as ours does. Each measurement is a
process of its own, from its start to the end of its first step. `ready` is that time without the step itself: imports,
data, weights, adapter, optimizer. One run of each comes first, uncounted, and fills the caches. Ratios are theirs to
ours: above 1 we are faster. Machines are shared and noisy: read ratios of one run, with the load printed beside them.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "host/engine/benches"))
from peers import program  # noqa: E402: found by the line above

RECIPE = ROOT / "host/recipes/json-extraction"


def peer(model_folder: str, threads: int) -> None:
    """TRL's first step, told as a line of JSON when it is done; runs in a process of its own."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(threads)

    def conversation(row: dict) -> dict:
        asked = [
            {"role": "system", "content": "Answer with one JSON object."},
            {"role": "user", "content": f"Text: {row['text']}\nJSON:"},
        ]
        return {"prompt": asked, "completion": [{"role": "assistant", "content": json.dumps(row["fields"])}]}

    class FirstStep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.began = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            print(json.dumps({"step_s": time.perf_counter() - self.began}), flush=True)

    rows = load_dataset("json", data_files=str(RECIPE / "train.jsonl"), split="train")
    rows = rows.map(conversation, remove_columns=rows.column_names)
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=8, max_length=256, learning_rate=5e-4,
        gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        model_init_kwargs={"dtype": torch.float32, "attn_implementation": "sdpa"},
    )
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    SFTTrainer(model_folder, args=config, train_dataset=rows, peft_config=lora, callbacks=[FirstStep()]).train()


def step_seconds(line: str) -> float | None:
    """Seconds of the first step, where `line` tells of it: ours by `--json`, or the peer's."""
    if not line.startswith("{"):
        return None
    told = json.loads(line)
    return told.get("time/step_s") if told.get("event") == "step" else told.get("step_s")


def measure(command: list[str], threads: int) -> dict:
    """Runs `command` until its first step is done; it is then stopped."""
    count = str(threads)
    env = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    env |= {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, cwd=ROOT)
    for line in process.stdout:
        if (step := step_seconds(line)) is not None:
            total = time.perf_counter() - began
            process.kill()
            process.wait()
            return {"first_step_s": total, "ready_s": total - step}
    sys.exit(f"ended with exit code {process.wait()} before its first step: {' '.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=lambda it: str(pathlib.Path(it).resolve()))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fthost", help="a program that is already built; otherwise cargo builds it")
    parser.add_argument("--json", type=pathlib.Path, help="write the measurements here as well")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(arguments.model, arguments.threads)

    with tempfile.TemporaryDirectory() as out:
        settings = {"model.path": arguments.model, "eval.before": "false", "output.dir": out}
        ours = [arguments.fthost or program(), "run", str(RECIPE / "run.toml"), "--json", "--overwrite"]
        for key, value in settings.items():
            ours += ["--set", f"{key}={value}"]
        theirs = [sys.executable, __file__, arguments.model, "--peer", "--threads", str(arguments.threads)]
        results = {"ours": [], "trl": [], "load": []}
        for pair in range(arguments.pairs + 1):
            load = os.getloadavg()[0]
            for name, command in (("ours", ours), ("trl", theirs)):
                found = measure(command, arguments.threads)
                what = f"pair {pair}" if pair else "filling caches"
                print(f"{what}, {name}: {json.dumps(found)}", file=sys.stderr)
                if pair:
                    results[name].append(found)
            if pair:
                results["load"].append(load)
    print("load at the start of each pair: " + " ".join(f"{it:.2f}" for it in results["load"]))
    print("| | ours, median | TRL, median | ours, min | TRL, min | ratio of medians |\n|---|---|---|---|---|---|")
    for key in ("first_step_s", "ready_s"):
        a, b = ([it[key] for it in results[name]] for name in ("ours", "trl"))
        middle = [statistics.median(it) for it in (a, b)]
        ratio = middle[1] / middle[0]
        print(f"| {key} | {middle[0]:.2f} | {middle[1]:.2f} | {min(a):.2f} | {min(b):.2f} | {ratio:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
