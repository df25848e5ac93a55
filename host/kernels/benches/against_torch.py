"""Times every operation of `host/kernels` beside torch's: alternately, with equal threads, forward and forward + backward.

    python host/kernels/benches/against_torch.py [--threads 2] [--pairs 5] [--reference] [--json FILE] [OPERATION ...]
Builds the bench programs with cargo (or takes those in `--programs FOLDER`: named as the benches, or the newest
`NAME-*`, so that `$CARGO_TARGET_DIR/release/deps` will do) and needs torch; `--list` prints what there is.
A pair is one run of ours and one of torch's, each the least call of several rounds of 100 ms; of ours, computing is the
least mean of a round, because the system counts it in ticks. Printed: a line of JSON an operation and shape, with medians
and minima over the pairs as [ours, torch's] in milliseconds by the clock and in milliseconds that all threads computed,
torch's over ours, peak memory where the bench program reports it, and the load before and after; in the end a table of all,
in Markdown. `--reference` runs the plain-tensor reference as a third of each pair.

torch's threads wait for each other by computing, so a core that somebody else takes costs it much more than us. `waited`
is the share of the clock that torch's threads stood in line for a core, summed over them; a row of the table in which it is
above a tenth has a star and says nothing. On a busy machine measure with `--threads 1`, and read the ratio of computing.

An operation is an entry of OPERATIONS: the bench program, the words that choose its line, and for torch a function that
makes the call to be timed, `f(tracked) -> outputs`, from leaves that it tracks where asked. What it calls is what
transformers, PEFT and TRL run on the CPU; backward is of a given gradient of the outputs, on both sides. An update of AdamW
has no backward, and neither has decoding's product. torch keeps its usual allocator, ours is set as in the product.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[3]
HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
HIDDEN, WIDE, KV_WIDTH, VOCABULARY, BLOCKS = 576, 1536, 192, 49152, 30
RANK, SCALING, EPS = 16, 2.0, 1e-5
BATCH, LENGTH = 4, 256
KINDS, UNITS = ("forward", "forward_backward"), ("ms", "cpu_ms")
ROUND_MS = 100.0
MOST_WAITED = 0.1
# What the product's allocator sets in code: keep pages, ask for large ones.
ALLOCATOR = {"MIMALLOC_PURGE_DELAY": "-1", "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"}


@dataclass
class Operation:
    """`words` choose the line of the program `bench`, a variant apart; `make` prepares torch's call."""

    bench: str
    words: list[str]
    make: Callable[[], Callable[[bool], object]]
    backward: bool = True


def leaf(it, tracked):
    return it.detach().requires_grad_(tracked)


def random(*shape):
    return torch.rand(shape) * 2 - 1


def sdpa(q, k, v):
    """torch's fused attention on its layout, [sequences, heads, length, head_dim]; transformers repeats keys like this."""
    group = HEADS // KV_HEADS
    k, v = (it[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2) for it in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention(sequences, length):
    q, k, v = (random(sequences, heads, length, HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    return lambda tracked: sdpa(*(leaf(it, tracked) for it in (q, k, v)))


def rotation(length):
    """As transformers' `apply_rotary_pos_emb`, of [sequences, heads, length, head_dim]."""
    cos, sin = (random(length, HEAD_DIM // 2).repeat(1, 2) for _ in range(2))
    half = HEAD_DIM // 2
    return lambda it: it * cos + torch.cat([-it[..., half:], it[..., :half]], -1) * sin


def qkv_attention(sequences, length):
    """As transformers: split what the projections left, rotate, attend, lay heads side by side again."""
    qkv, rotate = random(sequences, length, (HEADS + 2 * KV_HEADS) * HEAD_DIM), rotation(length)

    def run(tracked):
        heads = leaf(qkv, tracked).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
        q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], 1)
        return sdpa(rotate(q), rotate(k), v).transpose(1, 2).flatten(2)

    return run


def rope():
    x, rotate = random(BATCH, LENGTH, HEADS, HEAD_DIM), rotation(LENGTH)
    return lambda tracked: rotate(leaf(x, tracked).transpose(1, 2))


def llama_norm(x, weight):
    """transformers' `LlamaRMSNorm`; its casts are to f32 and back, so here none."""
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))


def rms_norm():
    x, weight = random(BATCH, LENGTH, HIDDEN), random(HIDDEN)
    return lambda tracked: llama_norm(leaf(x, tracked), weight)


def layer_norm():
    x, weight, bias = random(BATCH, LENGTH, HIDDEN), random(HIDDEN), random(HIDDEN)
    return lambda tracked: F.layer_norm(leaf(x, tracked), (HIDDEN,), weight, bias, EPS)


def gated(activation):
    gate, up = random(BATCH, LENGTH, WIDE), random(BATCH, LENGTH, WIDE)
    return lambda tracked: activation(leaf(gate, tracked)) * leaf(up, tracked)


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def adapted(outs, width):
    """Layers of one input, each as PEFT's `lora.Linear`: the base frozen, the adapter trained."""
    layers = [(random(out, width), random(RANK, width), random(out, RANK)) for out in outs]

    def run(x, tracked):
        def one(weight, a, b):
            low = F.linear(F.linear(x, leaf(a, tracked)), leaf(b, tracked))
            return F.linear(x, weight) + low * SCALING

        return [one(*it) for it in layers]

    return run


def lora(outs, norm):
    x, weight, run = random(BATCH, LENGTH, HIDDEN), torch.ones(HIDDEN), adapted(outs, HIDDEN)
    before = (lambda it: llama_norm(it, weight)) if norm else (lambda it: it)
    return lambda tracked: run(before(leaf(x, tracked)), tracked)


def lora_down():
    product, run = gated(F.silu), adapted([HIDDEN], WIDE)
    return lambda tracked: run(product(tracked), tracked)


def head(of_logits, trained):
    """transformers' and TRL's: the logits whole, in f32."""
    rows = BATCH * LENGTH
    hidden, weight = random(rows, HIDDEN), random(VOCABULARY, HIDDEN)
    targets = torch.arange(rows) * 7919 % VOCABULARY
    return lambda tracked: of_logits(F.linear(leaf(hidden, tracked), leaf(weight, tracked and trained)), targets)


def cross_entropy(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum")


def logps(logits, targets):
    """TRL's `selective_log_softmax`, a sequence at a time to hold less."""
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1)
    return chosen - torch.cat([it.logsumexp(-1) for it in logits.split(LENGTH)])


def linear(out, width, rows):
    """A product's share of a pass over 128 MiB of weights, so that none stays in the cache."""
    weights = [random(out, width) for _ in range(max((1 << 25) // (out * width), 1))]
    x = random(rows, width)

    def run(_):
        for weight in weights:
            F.linear(x, weight)

    run.calls = len(weights)
    return run


def adamw(adapters):
    """Clipping and an update as transformers' `Trainer` has them: vectors do not decay. torch has no moments in 8 bits."""
    linears = [(HIDDEN, HIDDEN), (KV_WIDTH, HIDDEN), (KV_WIDTH, HIDDEN), (HIDDEN, HIDDEN), (WIDE, HIDDEN), (WIDE, HIDDEN),
               (HIDDEN, WIDE)]
    if adapters:
        shapes = [shape for out, width in linears for shape in ((RANK, width), (out, RANK))] * BLOCKS
    else:
        shapes = [(VOCABULARY, HIDDEN), (HIDDEN,)] + [*linears, (HIDDEN,), (HIDDEN,)] * BLOCKS
    parameters = [torch.nn.Parameter(random(*it)) for it in shapes]
    for it in parameters:
        it.grad = random(*it.shape)
    groups = [{"params": [it for it in parameters if it.dim() > 1], "weight_decay": 0.01},
              {"params": [it for it in parameters if it.dim() == 1], "weight_decay": 0.0}]
    try:
        optimizer = torch.optim.AdamW(groups, lr=2e-4, fused=True)
        optimizer.step()
    except RuntimeError:
        optimizer = torch.optim.AdamW(groups, lr=2e-4, foreach=True)

    def run(_):
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return run


def operations():
    """Every entry by name and shape."""
    table, shape = {}, f"{BATCH}x{LENGTH}"
    for name, make in {"attention": attention, "qkv_attention": qkv_attention}.items():
        for of, sizes in {shape: (BATCH, LENGTH), "1x4096": (1, 4096)}.items():
            table[name, of] = Operation("attention", [name, of], lambda make=make, sizes=sizes: make(*sizes))
    for name, make in {
        "rms_norm": rms_norm,
        "layer_norm": layer_norm,
        "rope": rope,
        "swiglu": lambda: gated(F.silu),
        "geglu": lambda: gated(gelu_tanh),
        "lora_qkv": lambda: lora([HIDDEN, KV_WIDTH, KV_WIDTH], True),
        "lora_o": lambda: lora([HIDDEN], False),
        "lora_gate_up": lambda: lora([WIDE, WIDE], True),
        "lora_down": lora_down,
    }.items():
        table[name, shape] = Operation("operations", [name], make)
    for name, of_logits in {"loss": cross_entropy, "logps": logps}.items():
        for kind in ("frozen", "trained"):
            make = lambda of_logits=of_logits, kind=kind: head(of_logits, kind == "trained")
            table[f"head_{name}", f"{shape}, {kind} head"] = Operation("linear_cross_entropy", [name, kind], make)
    for out, width in ((HIDDEN, HIDDEN), (WIDE, HIDDEN), (VOCABULARY, HIDDEN)):
        for rows in (1, 4, 16):
            make, of = lambda sizes=(out, width, rows): linear(*sizes), f"{out}x{width}"
            table["linear", f"{of}, {rows} rows"] = Operation("linear", [of, str(rows)], make, backward=False)
    for name in ("adamw", "adamw8bit"):
        for of in ("full", "lora"):
            make = lambda of=of: adamw(of == "lora")
            table[name, of] = Operation("adamw", [name, of], make, backward=False)
    return table


OPERATIONS = operations()


def program(bench, folder):
    if folder:
        named = [it for it in Path(folder).glob(f"{bench}-*") if not it.suffix] or [Path(folder) / bench]
        return max(named, key=lambda it: it.stat().st_mtime)
    built = subprocess.run(
        ["cargo", "bench", "--profile", "release", "--bench", bench, "-p", "fthost-kernels", "--no-run",
         "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    lines = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return next(it["executable"] for it in lines if it.get("executable") and it["target"]["name"] == bench)


def ours(path, words, threads):
    """The line of JSON of a program's case."""
    environment = {**ALLOCATOR, **os.environ, "RAYON_NUM_THREADS": str(threads)}
    line = subprocess.run([path, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(line)


def torchs(call, rounds, backward):
    """Times under the keys of our programs' lines."""
    clocks = time.perf_counter, time.process_time

    def timed(work):
        begin = [clock() for clock in clocks]
        work()
        return [(clock() - since) * 1e3 for clock, since in zip(clocks, begin)]

    def least(work):
        calls = min(max(math.ceil(ROUND_MS / timed(work)[0]), 1), 10_000)
        times = [timed(work) for _ in range(rounds * calls)]
        return [min(of) / getattr(call, "calls", 1) for of in zip(*times)]

    listed = lambda outputs: outputs if isinstance(outputs, list) else [outputs]
    downstream = [random(*it.shape) for it in listed(call(False))] if backward else None
    both = lambda: torch.autograd.backward(listed(call(True)), downstream)
    with torch.no_grad():
        found = {"forward": least(lambda: call(False))}
    if backward:
        found["forward_backward"] = least(both)
    return {f"{kind}_{unit}": value for kind, of in found.items() for unit, value in zip(UNITS, of)}


def settle_allocator():
    """As in the midst of a run: glibc gives back every large block until it has seen one freed, then keeps them."""
    torch.empty(31 << 18)


def in_line():
    """Seconds that this process's threads have waited for a core; 0 where the system does not say."""
    found = 0
    for it in Path("/proc/self/task").glob("*/schedstat"):
        try:
            found += int(it.read_text().split()[1])
        except OSError:  # A thread that has ended.
            pass
    return found / 1e9


def held(key):
    """`VmRSS` or `VmHWM` of this process in MiB; none where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(it.split()[1]) / 1024 for it in lines if it.startswith(key)), None)


def print_peak(it):
    """MiB that torch's call and its inputs take at most beyond what torch itself does; nothing where it is not known."""
    before, call = held("VmRSS"), it.make()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
    torchs(call, 1, it.backward)
    if before:
        print(held("VmHWM") - before)


def peak_of_torch(name, shape, threads):
    """In a process of its own: what was freed before is used again and would not be seen."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak-of-torch", name, shape]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(printed) if printed else None


def compare(name, shape, asked):
    """One operation's medians, minima and ratios over all pairs."""
    it = OPERATIONS[name, shape]
    path, load = program(it.bench, asked.programs), os.getloadavg()[0]
    call = it.make()
    torchs(call, 1, it.backward)
    rounds = 3 if shape == "1x4096" else 5
    runs, clock, waited = {"ours": [], "torch": [], "reference": []}, 0, 0
    for _ in range(asked.pairs):
        runs["ours"].append(ours(path, [*it.words, "ours"], asked.threads))
        begin, waited_before = time.perf_counter(), in_line()
        runs["torch"].append(torchs(call, rounds, it.backward))
        clock, waited = clock + time.perf_counter() - begin, waited + in_line() - waited_before
        if asked.reference:
            runs["reference"].append(ours(path, [*it.words, "reference"], asked.threads))
    found = {"operation": name, "shape": shape, "threads": asked.threads, "pairs": asked.pairs}
    for measure in (f"{kind}_{unit}" for kind in KINDS[: 1 + it.backward] for unit in UNITS):
        mine, theirs, plain = ([run[measure] for run in runs[side]] for side in runs)
        of = {"median": statistics.median, "least": min}
        found[measure] = {key: [round(it(mine), 4), round(it(theirs), 4)] for key, it in of.items()}
        found[measure]["ratios"] = [round(it(theirs) / it(mine), 2) for it in of.values()]
        if plain:
            found[measure]["reference_ratios"] = [round(it(plain) / it(mine), 2) for it in of.values()]
    if "peak_mib" in runs["ours"][0] and (peak := peak_of_torch(name, shape, asked.threads)):
        found["peak_mib"] = [round(max(run["peak_mib"] for run in runs["ours"])), round(peak)]
    found["waited"] = round(waited / clock, 2)
    found["load"] = [round(load, 1), round(os.getloadavg()[0], 1)]
    return found


def table(rows, reference):
    """Markdown."""
    def ratio(row, kind, key="ratios"):
        if f"{kind}_ms" not in row:
            return ""
        clock, cpu = (row[f"{kind}_{unit}"][key][0] for unit in UNITS)
        return f"{clock:.2f} ({cpu:.2f})"

    def times(row):
        return " / ".join(f"{row[f'{kind}_ms']['median'][0]:.3g}" for kind in KINDS if f"{kind}_ms" in row)

    head = ["operation", "shape", "forward", "forward + backward", "ours, ms", "peak MiB, ours / torch", "load"]
    extra = ["reference: forward", "forward + backward"] if reference else []
    lines = [head + extra, ["---"] * len(head + extra)]
    for row in rows:
        star = "*" if row["waited"] > MOST_WAITED else ""
        cells = [row["operation"] + star, row["shape"], *(ratio(row, kind) for kind in KINDS), times(row),
                 " / ".join(map(str, row.get("peak_mib", []))), " to ".join(map(str, row["load"]))]
        lines.append(cells + [ratio(row, kind, "reference_ratios") for kind in KINDS if reference])
    head_line = f"Torch's time over ours at {rows[0]['threads']} threads, medians by the clock (and of computing); *: busy."
    return "\n".join([head_line, ""]
                     + ["| " + " | ".join(it) + " |" for it in lines])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("operations", nargs="*", help="names or shapes; all without")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--programs")
    parser.add_argument("--json", help="a file for the list of all lines")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--peak-of-torch", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = {it for key in OPERATIONS for it in key}
    if unknown := set(asked.operations) - known:
        parser.error(f"no such operation or shape: {', '.join(sorted(unknown))}; `--list` prints all")
    chosen = [key for key in OPERATIONS if not asked.operations or set(key) & set(asked.operations)]
    if asked.list:
        return print("\n".join(f"{name}: {shape}" for name, shape in chosen))
    torch.set_num_threads(asked.threads)
    if asked.peak_of_torch:
        return print_peak(OPERATIONS[tuple(asked.peak_of_torch)])
    settle_allocator()
    rows = []
    for name, shape in chosen:
        rows.append(compare(name, shape, asked))
        print(json.dumps(rows[-1]), flush=True)
        if asked.json:
            Path(asked.json).write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{table(rows, asked.reference)}")


if __name__ == "__main__":
    main()
