"""What ranks do together beside the same calls by mpi4py, under the same MPI, in turns.

    python host/engine/benches/against_mpi4py.py [--ranks 2] [--repeat 10] [--pairs 3] [--tcp]

All-gather, reduce-scatter and all-reduce of 1 to 64 MiB of f32; the fastest of `--repeat` times each, milliseconds, and the ratio of
ours to theirs. `--tcp` has Open MPI use TCP in place of shared memory.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time


def peer(repeat: int) -> None:
    import numpy
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    found = []
    for mib in (1, 4, 16, 64):
        length = (mib << 18) // world.size * world.size
        all_of, own = numpy.ones(length, numpy.float32), numpy.zeros(length // world.size, numpy.float32)

        def fastest(once):
            once()
            least = float("inf")
            for _ in range(repeat):
                world.Barrier()
                begin = time.perf_counter()
                once()
                world.Barrier()
                least = min(least, (time.perf_counter() - begin) * 1e3)
            return least

        def all_reduce():
            all_of.fill(1.0)
            world.Allreduce(MPI.IN_PLACE, all_of)

        found.append({
            "mib": mib,
            "all_gather_ms": fastest(lambda: world.Allgather(MPI.IN_PLACE, all_of)),
            "reduce_scatter_ms": fastest(lambda: world.Reduce_scatter_block(all_of, own)),
            "all_reduce_ms": fastest(all_reduce),
        })
    if world.rank == 0:
        print(json.dumps({"library": MPI.Get_library_version().split(",")[0], "sizes": found}))


def run(mpirun: list[str], command: list[str]) -> dict:
    env = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run([*mpirun, *command], stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return json.loads([it for it in done.stdout.splitlines() if it.startswith("{")][-1])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--ranks", type=int, default=2)
    arguments.add_argument("--repeat", type=int, default=10)
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--tcp", action="store_true")
    arguments.add_argument("--ours", help="our bench `ranks`, already built; otherwise cargo builds it")
    arguments.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    if arguments.peer:
        return peer(arguments.repeat)
    from peers import bench_binary

    bench = arguments.ours or bench_binary("ranks")
    mpirun = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(arguments.ranks)]
    if arguments.tcp:
        mpirun += ["--mca", "pml", "ob1", "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"]
    repeat = ["--repeat", str(arguments.repeat)]
    ours = [bench, "collectives", *repeat]
    theirs = [sys.executable, str(pathlib.Path(__file__)), "--peer", *repeat]
    least = {}
    for pair in range(arguments.pairs):
        for name in ("ours", "theirs") if pair % 2 == 0 else ("theirs", "ours"):
            for size in run(mpirun, ours if name == "ours" else theirs)["sizes"]:
                for operation, value in size.items():
                    key = (size["mib"], operation, name)
                    least[key] = min(least.get(key, float("inf")), value)
    print(f"{arguments.ranks} ranks, {'TCP' if arguments.tcp else 'shared memory'}, load {os.getloadavg()[0]:.1f}")
    print("| MiB | operation | ours, ms | mpi4py, ms | ratio |\n|---|---|---|---|---|")
    for mib in (1, 4, 16, 64):
        for operation in ("all_gather_ms", "reduce_scatter_ms", "all_reduce_ms"):
            a, b = least[mib, operation, "ours"], least[mib, operation, "theirs"]
            print(f"| {mib} | {operation[:-3].replace('_', '-')} | {a:.2f} | {b:.2f} | {a / b:.2f} |")


if __name__ == "__main__":
    main()
