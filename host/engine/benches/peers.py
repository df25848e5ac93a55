"""What the drivers that set ours against a peer share: measuring a process, taking turns, and the tables.

A driver describes one measurement of each side as a command whose output ends with one line of JSON, the report. Both
commands run in turns, each measurement a process of its own, and which side goes first changes with every pair, so that
a drift of the machine's load falls on both. Nothing here is specific to a workload.

A program that knows `--turns` prints a line before every step and begins it when a line comes in. Of two such programs
the steps take turns, not the measurements: both are loaded, one computes, and load that lasts seconds falls on both alike.

A report has `tokens_per_second` and, where the side can tell, `step_seconds` and `step_cpu_seconds`: wall and CPU seconds
(user and system) of each step, those that warm up included, `warm_up` of them. `measure` adds `cpu_seconds` (the whole
process, loading included) and `peak_rss_gib` (the process, not its children; the kernel's `ru_maxrss`).
"""
import argparse
import contextlib
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


class Measured:
    """A process that is being measured; its output is read as it comes."""

    def __init__(self, command: list[str], threads: int):
        count = str(threads)
        env = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        self.command, self.lines = command, []
        self.load, self.begin = os.getloadavg()[0], time.perf_counter()
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env, cwd=ROOT)

    def next_line(self) -> bool:
        """Waits for a line that is not empty; whether one came."""
        text = next((it for it in self.process.stdout if it.strip()), None)
        if text is not None:
            self.lines.append(Line(text, self.process.pid))
        return text is not None

    def step(self) -> None:
        """Has a program that waits for its turn take a step, and waits for it."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            # It has ended, and `finish` says why.
            return
        self.next_line()

    def finish(self, read: Callable[[list[Line]], dict] = last_line) -> dict:
        """Waits for the end; the report that `read` finds in the output, with what the kernel knows of the process.

        `step_cpu_seconds` of the result is the median of the steps after those that warm up; `load` is the machine's before.
        """
        # A program that reads on meets the end, and does not wait for a line for ever.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        while self.next_line():
            pass
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            # Where a program tells its errors as JSON they are in its output.
            told = "".join(it.text for it in self.lines[-3:])
            sys.exit(f"failed with exit code {self.process.returncode}: {' '.join(self.command)}\n{told}")
        found = read(self.lines)
        steps = found.pop("step_cpu_seconds", None)
        result = found | {
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "wall_seconds": time.perf_counter() - self.begin,
            "peak_rss_gib": usage.ru_maxrss / 2**20,
            "load": self.load,
        }
        if steps:
            result["step_cpu_seconds"] = statistics.median(steps[found.get("warm_up", 1):])
        return result


def measure(command: list[str], threads: int, read: Callable[[list[Line]], dict] = last_line) -> dict:
    """Runs `command` to its end, as [`Measured`] says."""
    return Measured(command, threads).finish(read)


def wait_for_turn() -> None:
    """What a peer does before each step of `--turns`."""
    print("ready", flush=True)
    sys.stdin.readline()


SETTLE_SECONDS = 0.3
"""After a step, before the other side's: OpenMP's threads compute a while before they sleep."""


def alternate_steps(commands: dict[str, list[str]], threads: int, steps: int, pairs: int) -> dict[str, list[dict]]:
    """As [`alternate`], of two programs that know `--turns`, whose `steps`, those that warm up included, take turns."""
    results = {name: [] for name in commands}
    for pair in range(pairs):
        running = {}
        for name, command in commands.items():
            running[name] = Measured(command, threads)
            running[name].next_line()
        for step in range(steps):
            for name in order(commands, pair + step):
                time.sleep(SETTLE_SECONDS)
                running[name].step()
        for name, it in running.items():
            note(results, name, it.finish())
    return results


def order(sides: dict, turn: int) -> list[str]:
    """The names of `sides`: which goes first changes with every turn."""
    return list(sides) if turn % 2 == 0 else list(reversed(sides))


def note(results: dict[str, list[dict]], name: str, found: dict, label: str = "") -> None:
    """Adds a measurement, and tells of it."""
    results[name].append(found)
    short = {key: round(found[key], 3) for key in (*FIGURES, "load") if key in found}
    print(f"{label}pair {len(results[name])}, {name}: {json.dumps(short)}", file=sys.stderr, flush=True)


def alternate(sides: dict[str, Callable[[], dict]], pairs: int, label: str = "") -> dict[str, list[dict]]:
    """Measures both `sides` in turns; the side that goes first changes with every pair."""
    results = {name: [] for name in sides}
    for pair in range(pairs):
        for name in order(sides, pair):
            note(results, name, sides[name](), label)
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
