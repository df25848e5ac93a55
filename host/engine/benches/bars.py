"""Every bar that speed and memory are held to, one driver after the other, and one table in the end.

    python host/engine/benches/bars.py MODEL_FOLDER [--only lora full json instruction generation startup growth]
        [--pairs 5] [--steps 5] [--threads 2] [--json FILE] [--bin-dir FOLDER]

The Python that runs this needs what the drivers need: torch, transformers, peft, trl, datasets, chatterbot-corpus with
PyYAML, and llama-cpp-python. A row whose peer is not installed is skipped, loudly, and so is one whose driver fails; the
others run. Each driver prints its own tables, and says in its head what is measured. `ratio` is that of the medians;
for speed and time it says how many times faster ours is, for memory and CPU seconds ours over theirs. Run it on a machine
that does nothing else. Exit code 1 where a bar that was measured is not met.

`--bin-dir` is a folder of release programs that are already built, such as `$CARGO_TARGET_DIR/release`: the newest
`fthost`, `deps/sft_step-*` and `deps/generate-*` are used. Otherwise cargo builds them.
"""
import argparse
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import against_peft
import against_trl
import growth
from peers import ROOT, bench_binary, parser, program, write

NEEDED = {
    "lora": ["torch", "transformers", "peft"],
    "full": ["torch", "transformers"],
    "json": ["torch", "transformers", "peft", "trl", "datasets"],
    "instruction": ["torch", "transformers", "peft", "trl", "datasets", "chatterbot_corpus", "yaml"],
    "generation": ["torch", "transformers"],
    "startup": ["torch", "transformers", "peft", "trl", "datasets"],
    "growth": [],
}
"""The rows, in the order of running, with what each needs to be installed."""

BARS = {"lora": 1.3, "full": 1.2, "json": 2.0, "instruction": 2.0, "transformers": 3.0, "llama.cpp": 0.8, "startup": 10.0}
MEMORY_BAR, GROWTH_BAR = 0.5, 1.1
"""Peak RSS at most this share of the peer's; time and memory that grow at most this much more than predicted."""


class Skipped(Exception):
    """Why a row was not measured."""


class Board:
    """The final table's rows."""

    def __init__(self):
        self.rows = []

    def add(self, work: str, peer: str, found: dict, bar: float, unit: str, at_most: bool = False, cpu: float | None = None) -> None:
        """`found` has `ours`, `theirs` and `ratio`, as `peers.compare` gives them."""
        met = found["ratio"] <= bar if at_most else found["ratio"] >= bar
        self.rows.append({"work": work, "peer": peer, "unit": unit, "ours": found["ours"], "theirs": found["theirs"],
                          "ratio": found["ratio"], "cpu_ratio": cpu, "bar": bar, "at_most": at_most, "met": met})

    def skip(self, work: str, why: str) -> None:
        print(f"SKIPPED {work}: {why}", flush=True)
        self.rows.append({"work": work, "skipped": why})

    def steps(self, work: str, compared: dict, peer: str, bar: float) -> None:
        """Speed and memory of training steps."""
        cpu = compared.get("step_cpu_seconds") or compared.get("cpu_seconds_per_thousand") or compared["cpu_seconds"]
        self.add(work, peer, compared["tokens_per_second"], bar, "tokens/s", cpu=cpu["ratio"])
        self.add(f"{work}: peak RSS", peer, compared["peak_rss_gib"], MEMORY_BAR, "GiB", at_most=True)

    def print(self) -> None:
        print("\n| work | peer | ours | theirs | ratio | bar | met? | CPU seconds, ours / theirs |\n|" + "---|" * 8)
        for it in self.rows:
            if "skipped" in it:
                print(f"| {it['work']} | SKIPPED: {it['skipped']} | | | | | | |")
                continue
            cpu = f"{it['cpu_ratio']:.2f}" if it["cpu_ratio"] is not None else ""
            sign, met = "<=" if it["at_most"] else ">=", "yes" if it["met"] else "**no**"
            print(f"| {it['work']} | {it['peer']} | {it['ours']:.2f} {it['unit']} | {it['theirs']:.2f} | {it['ratio']:.2f} | "
                  f"{sign} {it['bar']} | {met} | {cpu} |")


def common(arguments: argparse.Namespace, ours: str, steps: int | None = None) -> list[str]:
    told = [arguments.model, "--pairs", arguments.pairs, "--threads", arguments.threads, "--ours", ours]
    return [str(it) for it in told + ["--steps", steps or arguments.steps]]


def equal_rows(row: str, arguments: argparse.Namespace, board: Board) -> dict:
    # Trained whole, the weights with gradients and moments alone come close to the bar on memory: ours computes blocks
    # again, which the peer does not, and is held to the bar on speed all the same.
    full = ["--full", "--first-n", "22"] if row == "full" else []
    found = against_peft.run(against_peft.arguments_of(common(arguments, arguments.program("sft_step")) + full))
    work = "full fine-tuning step, 4 x 256, ours with 22 of 30 blocks twice" if full else "LoRA r=16 step, 4 x 256"
    board.steps(work, found["compared"], "transformers" if full else "transformers + PEFT", BARS[row])
    return found


def real_rows(row: str, arguments: argparse.Namespace, board: Board) -> dict:
    given = common(arguments, arguments.program("fthost"), arguments.real_steps) + ["--set", row]
    found = against_trl.run(against_trl.arguments_of(given))
    board.steps(f"rows of real lengths, {row} set", found["compared"], list(found["measurements"])[1], BARS[row])
    return found


def driver(file: str, arguments: argparse.Namespace, more: list[str], our_flag: str, ours: str) -> dict:
    """Runs a driver that is a program of its own and gives what it wrote by `--json`."""
    path = ROOT / file
    if not path.exists():
        raise Skipped(f"`{file}` is not there")
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "found.json"
        command = [sys.executable, str(path), arguments.model, "--pairs", arguments.pairs, "--threads", arguments.threads]
        command += [our_flag, ours, "--json", out, *more]
        if subprocess.run([str(it) for it in command], cwd=ROOT).returncode != 0:
            raise Skipped(f"`{file}` failed; see above")
        return json.loads(out.read_text(encoding="utf-8"))


def medians(ours: list[dict], theirs: list[dict], key: str, faster_is_less: bool = False) -> dict:
    a, b = (statistics.median(it[key] for it in side) for side in (ours, theirs))
    return {"ours": a, "theirs": b, "ratio": b / a if faster_is_less else a / b}


def generation(_: str, arguments: argparse.Namespace, board: Board) -> dict:
    """The driver's JSON has `comparisons`, each with `batch`, `peer` (a name), and the measurements `ours` and `theirs`."""
    more = ["--batch", "1", "16", "--new-tokens", "128", "--repeat", "1"]
    found = driver("host/engine/benches/against_transformers.py", arguments, more, "--ours", arguments.program("generate"))
    for it in found["comparisons"]:
        ours, theirs = it["ours"], it["theirs"]
        bar = BARS["llama.cpp" if "llama" in it["peer"] else "transformers"]
        work = f"greedy generation, batch {it['batch']}, 128 tokens"
        cpu = medians(ours, theirs, "cpu_seconds")["ratio"]
        board.add(work, it["peer"], medians(ours, theirs, "tokens_per_second"), bar, "tokens/s", cpu=cpu)
        if "llama" not in it["peer"]:
            board.add(f"{work}: peak RSS", it["peer"], medians(ours, theirs, "peak_rss_gib"), MEMORY_BAR, "GiB", at_most=True)
    return found


def startup(_: str, arguments: argparse.Namespace, board: Board) -> dict:
    file = "host/run/benches/startup_against_trl.py"
    found = driver(file, arguments, [], "--fthost", arguments.program("fthost"))
    for work, key in (("command to the first step", "ready_s"), ("command to the end of the first step", "first_step_s")):
        board.add(work, "TRL, warm cache", medians(found["ours"], found["trl"], key, True), BARS["startup"], "s")
    return found


def growing(_: str, arguments: argparse.Namespace, board: Board) -> dict:
    given = [arguments.model, "--threads", arguments.threads, "--ours", arguments.program("sft_step"), "--pairs", arguments.pairs]
    found = growth.run(growth.arguments_of([str(it) for it in given]))
    lines = found["growth"]["ours"]
    for it in lines[1:]:
        work = f"growth, {lines[0]['length']} -> {it['length']} at equal tokens"
        time = {"ours": it["measured"], "theirs": it["predicted"], "ratio": it["measured"] / it["predicted"]}
        cpu = it["measured_cpu"] / it["predicted"]
        board.add(f"{work}: time a token", "predicted from FLOPs", time, GROWTH_BAR, "x", at_most=True, cpu=cpu)
        memory = {"ours": it["memory"], "theirs": 1.0, "ratio": it["memory"]}
        board.add(f"{work}: peak RSS", "no growth", memory, GROWTH_BAR, "x", at_most=True)
    return found


RUNS = {"lora": equal_rows, "full": equal_rows, "json": real_rows, "instruction": real_rows,
        "generation": generation, "startup": startup, "growth": growing}


def programs(folder: pathlib.Path | None):
    """Finds our programs in `folder`, or builds each when it is first asked for."""
    known = {}

    def found(name: str) -> str:
        if name not in known:
            if folder is None:
                known[name] = program() if name == "fthost" else bench_binary(name)
            else:
                files = [folder / name] if name == "fthost" else [it for it in folder.glob(f"deps/{name}-*") if not it.suffix]
                files = [it for it in files if it.exists()]
                if not files:
                    raise Skipped(f"no `{name}` in `{folder}`")
                known[name] = str(max(files, key=lambda it: it.stat().st_mtime).resolve())
        return known[name]

    return found


def main() -> int:
    known = parser(__doc__)
    known.add_argument("--only", nargs="+", choices=list(NEEDED), default=list(NEEDED))
    known.add_argument("--bin-dir", type=pathlib.Path, help="release programs that are already built")
    known.add_argument("--real-steps", type=int, default=10, help="steps of the rows of real lengths that count")
    arguments = known.parse_args()
    arguments.program = programs(arguments.bin_dir)
    board, found = Board(), {}
    for row in (it for it in NEEDED if it in arguments.only):
        missing = [it for it in NEEDED[row] if importlib.util.find_spec(it) is None]
        if missing:
            board.skip(row, f"not installed: {', '.join(missing)}")
            continue
        print(f"\n== {row}", flush=True)
        try:
            found[row] = RUNS[row](row, arguments, board)
        except Skipped as why:
            board.skip(row, str(why))
        except SystemExit as why:
            board.skip(row, f"failed: {why}")
        except KeyError as missing:
            board.skip(row, f"its driver's JSON has no {missing}")
        # What was found is kept even where a later row takes the machine down.
        write(arguments.json, {"rows": board.rows, "found": found})
    board.print()
    return 0 if all(it.get("met", True) for it in board.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
