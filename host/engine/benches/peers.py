"""What the drivers that set ours against a peer share: measuring a process, taking turns, and the tables.

A driver describes one measurement of each side as a command whose output ends with one line of JSON, the report. Both
commands run in turns, each measurement a process of its own, and which side goes first changes with every pair, so that
a drift of the machine's load falls on both. Nothing here is specific to a workload.

A report has `tokens_per_second` and, where the side can tell, `step_seconds` and `step_cpu_seconds`: wall and CPU seconds
(user and system) of each step, those that warm up included, `warm_up` of them. `measure` adds `cpu_seconds` (the whole
process, loading included) and `peak_rss_gib` (the process, not its children; the kernel's `ru_maxrss`).
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[3]

FIGURES = {
    "tokens_per_second": "tokens/s",
    "step_cpu_seconds": "CPU seconds a step",
    "cpu_seconds_per_thousand": "CPU seconds a 1000 tokens",
    "cpu_seconds": "CPU seconds, process",
    "peak_rss_gib": "peak RSS, GiB",
}
"""What is compared, where both sides tell it, and how the tables call it."""

COLUMNS = ("ours", "theirs", "ours_best", "theirs_best", "ratio", "ratio_of_bests")
"""The tables' columns of numbers."""


class StepClock:
    """Wall and CPU seconds of each step of this process, as a report holds them."""

    def __init__(self):
        self.wall, self.cpu = [], []
        self.begin()

    @staticmethod
    def _now() -> tuple[float, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), usage.ru_utime + usage.ru_stime

    def begin(self) -> None:
        self._begin = self._now()

    def end(self) -> None:
        wall, cpu = self._now()
        self.wall.append(wall - self._begin[0])
        self.cpu.append(cpu - self._begin[1])

    def report(self, tokens_per_step: float, warm_up: int = 1) -> dict:
        """The report of steps of equal size: tokens/s of the median step."""
        return {
            "tokens_per_second": tokens_per_step / statistics.median(self.wall[warm_up:]),
            "step_seconds": self.wall,
            "step_cpu_seconds": self.cpu,
            "warm_up": warm_up,
        }


def process_cpu_seconds(pid: int) -> float:
    """CPU seconds that a running process has used, children aside, to the kernel's tick (10 ms)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Line:
    """A line of a process's output, with the wall and CPU seconds at which it came."""

    def __init__(self, text: str, pid: int):
        self.text, self.seconds = text, time.perf_counter()
        try:
            self.cpu_seconds = process_cpu_seconds(pid)
        except (OSError, IndexError):
            # The last lines may be read when the process is gone.
            self.cpu_seconds = None


def last_line(lines: list[Line]) -> dict:
    return json.loads(lines[-1].text)


def measure(command: list[str], threads: int, read: Callable[[list[Line]], dict] = last_line) -> dict:
    """Runs `command`, whose report `read` finds in its output, and adds what the kernel knows of the process.

    `step_cpu_seconds` of the result is the median of the steps after those that warm up; `load` is the machine's before.
    """
    count = str(threads)
    env = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    load, begin = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    lines = [Line(text, process.pid) for text in process.stdout if text.strip()]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        # Where a program tells its errors as JSON they are in its output.
        told = "".join(it.text for it in lines[-3:])
        sys.exit(f"failed with exit code {process.returncode}: {' '.join(command)}\n{told}")
    found = read(lines)
    steps = found.pop("step_cpu_seconds", None)
    result = found | {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - begin,
        "peak_rss_gib": usage.ru_maxrss / 2**20,
        "load": load,
    }
    if steps:
        result["step_cpu_seconds"] = statistics.median(steps[found.get("warm_up", 1):])
    return result


def alternate(sides: dict[str, Callable[[], dict]], pairs: int, label: str = "") -> dict[str, list[dict]]:
    """Measures both `sides` in turns; the side that goes first changes with every pair."""
    results = {name: [] for name in sides}
    for pair in range(pairs):
        order = list(sides) if pair % 2 == 0 else list(reversed(sides))
        for name in order:
            found = sides[name]()
            results[name].append(found)
            short = {key: round(found[key], 3) for key in (*FIGURES, "load") if key in found}
            print(f"{label}pair {pair + 1}, {name}: {json.dumps(short)}", file=sys.stderr, flush=True)
    return results


def compare(results: dict[str, list[dict]]) -> dict[str, dict]:
    """Medians, bests and ratios of every figure that both sides have; the first side is ours.

    The best is the fastest step, or the least of memory and CPU seconds: what the least disturbed measurement gave.

    `ratio` is that of the medians; `pairs` are the ratios within each pair, whose spread says what the ratio is worth.
    """
    (_, ours), (_, theirs) = results.items()
    found = {}
    for key in FIGURES:
        if not all(key in it for it in ours + theirs):
            continue
        a, b = [it[key] for it in ours], [it[key] for it in theirs]
        best = max if key == "tokens_per_second" else min
        found[key] = {
            "ours": statistics.median(a), "theirs": statistics.median(b), "ours_best": best(a), "theirs_best": best(b),
            "ratio": statistics.median(a) / statistics.median(b), "ratio_of_bests": best(a) / best(b),
            "pairs": [x / y for x, y in zip(a, b)],
        }
    return found


def print_table(results: dict[str, list[dict]], title: str = "") -> dict[str, dict]:
    """Prints [`compare`] as a table, ratios ours to theirs, with the load beside it, and gives what it printed."""
    ours, theirs = results
    compared = compare(results)
    loads = [it["load"] for side in results.values() for it in side if "load" in it]
    print(f"{title}{'; ' if title else ''}load before the measurements {min(loads):.1f} to {max(loads):.1f}")
    sides = f"{ours}, median | {theirs}, median | {ours}, best | {theirs}, best"
    print(f"| | {sides} | ratio of medians | ratio of bests | ratios of pairs |\n|---|---|---|---|---|---|---|---|")
    for key, it in compared.items():
        numbers = " | ".join(f"{it[name]:.2f}" for name in COLUMNS)
        print(f"| {FIGURES[key]} | {numbers} | {min(it['pairs']):.2f} to {max(it['pairs']):.2f} |")
    sys.stdout.flush()
    return compared


def built(arguments: list[str], name: str) -> str:
    """Builds with cargo and returns the path of the program `name`."""
    # The whole workspace: one package alone has other features, and Burn would be compiled again for them.
    output = subprocess.run(["cargo", *arguments, "--message-format", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if output.returncode != 0:
        sys.exit(f"`{name}` does not build; see above")
    artifacts = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
    return next(it["executable"] for it in artifacts if it.get("executable") and it["target"]["name"] == name)


def bench_binary(bench: str) -> str:
    """Builds our bench and returns its path."""
    return built(["bench", "--workspace", "--bench", bench, "--no-run", "--profile", "release"], bench)


def program() -> str:
    """Builds `fthost` and returns its path."""
    return built(["build", "--workspace", "--release", "--bin", "fthost"], "fthost")


def parser(description: str, pairs: int = 5, steps: int = 5) -> argparse.ArgumentParser:
    """The arguments that every driver has."""
    found = argparse.ArgumentParser(description=description.splitlines()[0])
    found.add_argument("model", type=lambda it: str(pathlib.Path(it).resolve()), help="the model's folder")
    found.add_argument("--pairs", type=int, default=pairs, help="measurements of each side")
    found.add_argument("--steps", type=int, default=steps, help="steps that count in a measurement")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--ours", help="our program, already built; otherwise cargo builds it")
    found.add_argument("--json", type=pathlib.Path, help="write the measurements here as well")
    found.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    return found


def write(path: pathlib.Path | None, found: dict) -> None:
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n")
