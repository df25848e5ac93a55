"""Times operations of `host/kernels` beside torch's: alternately, with equal threads, forward and forward + backward.

    python host/kernels/benches/against_torch.py [--threads 2] [--pairs 5] [OPERATION ...]
Builds the bench programs with cargo (or takes those in `--programs FOLDER`, named as the benches) and needs torch.
A pair is one run of ours and one of torch's, each the least of several rounds. Printed: a line of JSON an operation and
shape, with medians and minima over the pairs as [ours, torch's] in milliseconds by the clock and in milliseconds that all
threads computed (torch's wait for each other by computing), torch's over ours, and the load before and after.

An operation is an entry of OPERATIONS: the bench program, the words that choose its line, and for torch a function that
makes the call to be timed, `f(tracked) -> output`, from leaves that it tracks where asked.
"""
import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[3]
HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
KINDS, UNITS = ("forward", "forward_backward"), ("ms", "cpu_ms")


def leaf(it, tracked):
    return it.detach().requires_grad_(tracked)


def sdpa(q, k, v):
    """torch's fused attention on its layout, [sequences, heads, length, head_dim]; transformers repeats keys like this."""
    group = HEADS // KV_HEADS
    k, v = (it[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2) for it in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention(sequences, length):
    q, k, v = (torch.rand(sequences, heads, length, HEAD_DIM) * 2 - 1 for heads in (HEADS, KV_HEADS, KV_HEADS))
    return lambda tracked: sdpa(*(leaf(it, tracked) for it in (q, k, v)))


def qkv_attention(sequences, length):
    """As transformers: split what the projections left, rotate, attend, lay heads side by side again."""
    qkv = torch.rand(sequences, length, (HEADS + 2 * KV_HEADS) * HEAD_DIM) * 2 - 1
    cos, sin = (torch.rand(length, HEAD_DIM // 2).repeat(1, 2) for _ in range(2))
    rotate = lambda it: it * cos + torch.cat([-it[..., HEAD_DIM // 2:], it[..., : HEAD_DIM // 2]], -1) * sin

    def run(tracked):
        heads = leaf(qkv, tracked).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
        q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], 1)
        return sdpa(rotate(q), rotate(k), v).transpose(1, 2).flatten(2)

    return run


# Name and shape: the bench, the words that choose its line, torch's call.
OPERATIONS = {
    (name, shape): ("attention", [name, shape, "ours"], lambda make=make, sizes=sizes: make(*sizes))
    for name, make in {"attention": attention, "qkv_attention": qkv_attention}.items()
    for shape, sizes in {"4x256": (4, 256), "1x4096": (1, 4096)}.items()
}


def program(bench, folder):
    if folder:
        return Path(folder) / bench
    built = subprocess.run(
        ["cargo", "bench", "--profile", "release", "--bench", bench, "-p", "fthost-kernels", "--no-run",
         "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    lines = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return next(it["executable"] for it in lines if it.get("executable") and it["target"]["name"] == bench)


def ours(path, words, threads):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    line = subprocess.run([path, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    found = json.loads(line)
    return [found[f"{kind}_{unit}"] for kind in KINDS for unit in UNITS]


def torchs(call, rounds):
    def least(work):
        clocks, times = (time.perf_counter, time.process_time), []
        for _ in range(rounds):
            begin = [clock() for clock in clocks]
            work()
            times.append([(clock() - since) * 1e3 for clock, since in zip(clocks, begin)])
        return [min(of) for of in zip(*times)]

    with torch.no_grad():
        forward = least(lambda: call(False))
    return forward + least(lambda: call(True).sum().backward())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("operations", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--programs")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for (name, shape), (bench, words, make) in OPERATIONS.items():
        if asked.operations and not {name, shape} & set(asked.operations):
            continue
        path, call, load = program(bench, asked.programs), make(), os.getloadavg()[0]
        rounds = 3 if shape == "1x4096" else 9
        torchs(call, 1)
        pairs = [(ours(path, words, asked.threads), torchs(call, rounds)) for _ in range(asked.pairs)]
        found = {"operation": name, "shape": shape, "threads": asked.threads, "pairs": asked.pairs}
        for place, measure in enumerate(f"{kind}_{unit}" for kind in KINDS for unit in UNITS):
            mine, theirs = ([pair[side][place] for pair in pairs] for side in (0, 1))
            of = {"median": statistics.median, "least": min}
            found[measure] = {name: [round(it(mine), 2), round(it(theirs), 2)] for name, it in of.items()}
            found[measure]["ratios"] = [round(it(theirs) / it(mine), 2) for it in of.values()]
        found["load"] = [round(load, 1), round(os.getloadavg()[0], 1)]
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
