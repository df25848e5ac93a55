"""Supervised LoRA fine-tuning, ours and transformers + PEFT in turns: tokens/s, CPU seconds and peak memory.

    python host/engine/benches/against_peft.py MODEL_FOLDER [--pairs 3] [--steps 5] [--threads 2] [--json FILE]

The Python that runs this needs torch, transformers and peft. Both sides train LoRA of rank 16 on every linear layer of
the blocks, on 4 rows of 256 random tokens, all supervised, in f32; the peer uses sdpa attention and torch's AdamW. Each
measurement is a process of its own, the first step warms up, and a step's time is the median of the rest. CPU seconds
are those of the whole process, loading included. Ratios are ours to theirs: above 1 is better for tokens/s, below 1 for
memory and CPU seconds. Machines are shared and noisy: read ratios of one run, with the load printed beside them.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
RANK, BATCH, LENGTH = 16, 4, 256


def peer(model_folder: str, steps: int, threads: int) -> None:
    """One measurement of transformers + PEFT, printed as JSON; runs in a process of its own."""
    import time

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa")
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    trained = [it for it in model.parameters() if it.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    seconds = []
    for _ in range(steps + 1):
        ids = torch.randint(0, base.config.vocab_size, (BATCH, LENGTH))
        begin = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds[1:])
    print(json.dumps({"tokens_per_second": BATCH * LENGTH / median, "step_seconds": seconds}))


def measure(command: list[str], threads: int) -> dict:
    """Runs `command`, whose last line of output is JSON, and adds CPU seconds and peak memory of the process."""
    count = str(threads)
    env = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"failed with exit code {process.returncode}: {' '.join(command)}")
    found = json.loads(output.strip().splitlines()[-1])
    return {
        "tokens_per_second": found["tokens_per_second"],
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_gib": usage.ru_maxrss / 2**20,
    }


def bench_binary(bench: str) -> str:
    """Builds our bench and returns its path."""
    # The whole workspace: one package alone has other features, and Burn would be compiled again for them.
    command = ["cargo", "bench", "--workspace", "--bench", bench, "--no-run", "--profile", "release"]
    output = subprocess.run(command + ["--message-format", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if output.returncode != 0:
        sys.exit("the bench does not build; see above")
    artifacts = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
    return next(it["executable"] for it in artifacts if it.get("executable") and it["target"]["name"] == bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=lambda it: str(pathlib.Path(it).resolve()))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", help="a bench binary that is already built; otherwise cargo builds it")
    parser.add_argument("--json", type=pathlib.Path, help="write the measurements here as well")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(arguments.model, arguments.steps, arguments.threads)

    steps = ["--steps", str(arguments.steps)]
    ours = [arguments.ours or bench_binary("sft_step"), arguments.model, "--rank", str(RANK), "--batch", str(BATCH), "--length", str(LENGTH), *steps]
    theirs = [sys.executable, __file__, arguments.model, "--peer", "--threads", str(arguments.threads), *steps]
    results = {"ours": [], "peft": [], "load": []}
    for pair in range(arguments.pairs):
        results["load"].append(os.getloadavg()[0])
        for name, command in (("ours", ours), ("peft", theirs)):
            results[name].append(measure(command, arguments.threads))
            print(f"pair {pair + 1}, {name}: {json.dumps(results[name][-1])}", file=sys.stderr)
    print("load at the start of each pair: " + " ".join(f"{it:.2f}" for it in results["load"]))
    print("| | ours, median | PEFT, median | ours, min | PEFT, min | ratio of medians |\n|---|---|---|---|---|---|")
    for key in ("tokens_per_second", "cpu_seconds", "peak_rss_gib"):
        a, b = ([it[key] for it in results[name]] for name in ("ours", "peft"))
        middle = [statistics.median(it) for it in (a, b)]
        ratio = middle[0] / middle[1]
        print(f"| {key} | {middle[0]:.2f} | {middle[1]:.2f} | {min(a):.2f} | {min(b):.2f} | {ratio:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
