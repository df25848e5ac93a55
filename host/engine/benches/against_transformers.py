"""Greedy generation, ours and transformers' `generate` in turns: tokens/s, CPU seconds and peak memory.

    python host/engine/benches/against_transformers.py MODEL_FOLDER [--pairs 3] [--batch 1 8] [--prompt 32]
        [--new-tokens 64] [--threads 2]

The Python that runs this needs torch and transformers. Both sides continue random prompts of equal length in f32; no
token ends an answer. Each measurement is a process of its own: one call warms up, the median of three counts, reading
the prompts included. Ratios are ours to theirs: above 1 is better for tokens/s, below 1 for memory and CPU seconds.
Machines are shared and noisy: read ratios of one run, with the load printed beside them.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys

from against_peft import bench_binary, measure

REPEAT = 3


def peer(arguments: argparse.Namespace) -> None:
    """One measurement of transformers, printed as JSON; runs in a process of its own."""
    import time

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = torch.randint(0, model.config.vocab_size, (arguments.batch[0], arguments.prompt))
    seconds = []
    for _ in range(REPEAT + 1):
        begin = time.perf_counter()
        with torch.no_grad():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=arguments.new_tokens,
                           do_sample=False, eos_token_id=None, pad_token_id=0)
        seconds.append(time.perf_counter() - begin)
    tokens = arguments.batch[0] * arguments.new_tokens
    print(json.dumps({"tokens_per_second": tokens / statistics.median(seconds[1:]), "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=lambda it: str(pathlib.Path(it).resolve()))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", help="a bench binary that is already built; otherwise cargo builds it")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(arguments)

    binary = arguments.ours or bench_binary("generate")
    for batch in arguments.batch:
        shape = ["--batch", str(batch), "--prompt", str(arguments.prompt), "--new-tokens", str(arguments.new_tokens)]
        ours = [binary, arguments.model, "--repeat", str(REPEAT), *shape]
        theirs = [sys.executable, __file__, arguments.model, "--peer", "--threads", str(arguments.threads), *shape]
        results = {"ours": [], "transformers": [], "load": []}
        for pair in range(arguments.pairs):
            results["load"].append(os.getloadavg()[0])
            for name, command in (("ours", ours), ("transformers", theirs)):
                results[name].append(measure(command, arguments.threads))
                print(f"batch {batch}, pair {pair + 1}, {name}: {json.dumps(results[name][-1])}", file=sys.stderr)
        print(f"batch {batch}; load at the start of each pair: " + " ".join(f"{it:.2f}" for it in results["load"]))
        print("| | ours, median | transformers, median | ratio of medians |\n|---|---|---|---|")
        for key in ("tokens_per_second", "cpu_seconds", "peak_rss_gib"):
            a, b = (statistics.median(it[key] for it in results[name]) for name in ("ours", "transformers"))
            print(f"| {key} | {a:.2f} | {b:.2f} | {a / b:.2f} |")


if __name__ == "__main__":
    main()
