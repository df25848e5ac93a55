"""How a step grows with the length of a row, at equal tokens: time a token and peak memory beside what they should be.

    python host/engine/benches/growth.py MODEL_FOLDER [--tokens 4096] [--lengths 256 1024 4096] [--rank 16]
        [--activation-checkpointing off|block|N] [--peer-too] [--pairs 3] [--steps 3] [--threads 2] [--json FILE]

LoRA steps of ours on random tokens, all supervised: 16 x 256, 4 x 1024 and 1 x 4096. A step's products are counted from the
model's configuration: those of the linear layers and of the head do not know the length, and a query of causal attention
meets (length + 1) / 2 keys in the mean. `predicted` is the ratio of these FLOPs to those of the first length; where
`measured / predicted` stays near 1, time a token grows by attention's FLOPs alone. Memory at equal tokens is linear in the
length of a row where peak RSS does not grow: an N x N matrix would. With `--peer-too` transformers + PEFT does the same.
"""
import argparse
import json
import pathlib
import statistics

import against_peft
from peers import bench_binary, measure, parser, write


def flops_per_token(config: dict, length: int, rank: int, recomputed: bool) -> dict[str, float]:
    """FLOPs of the matrix products of one LoRA step, a token, by part. A multiplication with addition is two.

    A frozen linear does its product once forward and once backward (the gradient of its input); an adapter's also have
    a gradient of the weight. Attention's two products forward are four backward, and a fused backward computes the scores
    again. Blocks whose activations are computed again in backward go forward twice.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    queries, keys = heads * size, config["num_key_value_heads"] * size
    linears = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    linears += [(hidden, inner), (hidden, inner), (inner, hidden)]
    again = 1 if recomputed else 0
    frozen = sum(2 * a * b for a, b in linears) * layers
    adapters = sum(2 * rank * (a + b) for a, b in linears) * layers
    # Two products forward, of each query with the keys before it and itself.
    attention = 2 * 2 * queries * (length + 1) / 2 * layers
    return {
        "linears": frozen * (2 + again),
        "adapters": adapters * (3 + again),
        "attention": attention * (1 + again + 2.5),
        "head": 2 * 2 * hidden * config["vocab_size"],
    }


def run(arguments: argparse.Namespace) -> dict:
    """Every length in turn, `pairs` times; prints the table and gives it with the measurements."""
    binary = arguments.ours or bench_binary("sft_step")
    config = json.loads((pathlib.Path(arguments.model) / "config.json").read_text(encoding="utf-8"))
    checkpointing = arguments.activation_checkpointing
    sides = {"ours": []} | ({"PEFT": []} if arguments.peer_too else {})
    for _ in range(arguments.pairs):
        for length in arguments.lengths:
            told = ["--batch", arguments.tokens // length, "--length", length, "--steps", arguments.steps]
            told += ["--rank", arguments.rank, "--activation-checkpointing", checkpointing]
            found = measure([binary, arguments.model, *map(str, told)], arguments.threads)
            sides["ours"].append(found | {"length": length})
            if arguments.peer_too:
                asked = [arguments.model, "--batch", str(arguments.tokens // length), "--length", str(length)]
                asked += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
                asked += ["--gradient-checkpointing"] * (checkpointing != "off")
                found = measure(against_peft.theirs(against_peft.arguments_of(asked)), arguments.threads)
                sides["PEFT"].append(found | {"length": length})
    flops = [flops_per_token(config, it, arguments.rank, checkpointing != "off") for it in arguments.lengths]
    return {"measurements": sides, "growth": {name: table(name, found, arguments, flops) for name, found in sides.items()}}


def table(name: str, found: list[dict], arguments: argparse.Namespace, flops: list[dict[str, float]]) -> list[dict]:
    """Prints one side's table; ratios are to the first length."""
    print(f"{name}: {arguments.tokens} tokens a step, activation checkpointing {arguments.activation_checkpointing}; "
          f"load {min(it['load'] for it in found):.1f} to {max(it['load'] for it in found):.1f}")
    print("| rows | MFLOP a token | of it attention | ms a token | CPU ms a token | predicted | measured | measured, CPU | "
          "measured / predicted | peak RSS, GiB | memory |\n|" + "---|" * 11)
    lines = []
    for length, parts in zip(arguments.lengths, flops):
        same = [it for it in found if it["length"] == length]
        line = {
            "length": length, "flops": sum(parts.values()), "attention": parts["attention"],
            "seconds": 1 / statistics.median(it["tokens_per_second"] for it in same),
            "cpu_seconds": statistics.median(it["step_cpu_seconds"] for it in same) / arguments.tokens,
            "peak_rss_gib": statistics.median(it["peak_rss_gib"] for it in same),
        }
        first = lines[0] if lines else line
        for ratio, of in (("predicted", "flops"), ("measured", "seconds"), ("measured_cpu", "cpu_seconds"), ("memory", "peak_rss_gib")):
            line[ratio] = line[of] / first[of]
        lines.append(line)
        print(f"| {arguments.tokens // length} x {length} | {line['flops'] / 1e6:.0f} | {line['attention'] / line['flops']:.1%} | "
              f"{line['seconds'] * 1e3:.2f} | {line['cpu_seconds'] * 1e3:.2f} | {line['predicted']:.2f} | {line['measured']:.2f} | "
              f"{line['measured_cpu']:.2f} | {line['measured'] / line['predicted']:.2f} | {line['peak_rss_gib']:.2f} | "
              f"{line['memory']:.2f} |", flush=True)
    return lines


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    known = parser(__doc__, pairs=3, steps=3)
    known.add_argument("--tokens", type=int, default=4096)
    known.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    known.add_argument("--rank", type=int, default=16)
    known.add_argument("--activation-checkpointing", default="off")
    known.add_argument("--peer-too", action="store_true", help="measure transformers + PEFT as well")
    return known.parse_args(given)


def main() -> None:
    arguments = arguments_of()
    write(arguments.json, run(arguments))


if __name__ == "__main__":
    main()
