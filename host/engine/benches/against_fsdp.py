"""A shared model's steps beside PyTorch's FSDP2 over gloo, in turns, on 1 and 2 ranks.

    python host/engine/benches/against_fsdp.py MODEL_FOLDER [--pairs 3] [--steps 4] [--ranks 1,2] [--json FILE]

Each rank computes one micro-batch of 4 x 256 random tokens, all supervised, f32, AdamW, clipping; the machine's cores are shared
out among the ranks, as threads. Ours is under Open MPI's `mpirun`, theirs under `torchrun`. Four kinds of work:

- `full`: every weight; ours computes blocks again because their weights are let go of, theirs keeps activations.
- `full, checkpointed`: the same, theirs computes blocks again, too: equal work.
- `full, kept`: neither lets go of a block between forward and backward.
- `LoRA`: rank 16 on every linear, frozen weights shared as well.

Peak RSS is that of the rank that took most; of theirs it holds the whole model as it is loaded, which is how transformers loads it
on every rank: `--json` has all ranks' figures.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

from peers import alternate, bench_binary, parser, print_table, write

KINDS = {
    "full": (["--full"], []),
    "full, checkpointed": (["--full", "--activation-checkpointing", "block"], ["--checkpoint"]),
    "full, kept": (["--full", "--keep"], ["--keep"]),
    "LoRA": (["--rank", "16"], ["--rank", "16"]),
}


def run(command: list[str], threads: int) -> dict:
    """The report of a launcher's first rank."""
    count = str(threads)
    more = {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "HF_HUB_OFFLINE": "1"}
    load = os.getloadavg()[0]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | more)
    lines = [it for it in done.stdout.splitlines() if it.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    found = json.loads(lines[-1])
    return found | {"peak_rss_gib": max(found["peak_rss_gib_of_ranks"]), "load": load}


def main() -> None:
    arguments = parser(__doc__, pairs=3, steps=4)
    arguments.add_argument("--ranks", default="1,2")
    arguments.add_argument("--kinds", default=";".join(KINDS), help="some of them, by name, `;` between")
    arguments = arguments.parse_args()
    bench = arguments.ours or bench_binary("ranks")
    peer = str(pathlib.Path(__file__).with_name("fsdp_peer.py"))
    torchrun = shutil.which("torchrun", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    kinds, found = arguments.kinds.split(";"), {}
    for ranks in map(int, arguments.ranks.split(",")):
        threads = max(1, arguments.threads // ranks)
        for kind, (ours, theirs) in KINDS.items():
            if kind not in kinds:
                continue
            # Of one rank nothing is shared, on either side.
            shared = ["--shard", str(ranks)] if ranks > 1 else []
            ours = [it for it in ours if ranks > 1 or it != "--keep"]
            mpirun = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), bench, "step", arguments.model]
            mpirun += [*shared, *ours, "--steps", str(arguments.steps)]
            theirs = [torchrun, "--standalone", f"--nproc-per-node={ranks}", peer, arguments.model, *theirs]
            theirs += ["--steps", str(arguments.steps)]
            sides = {"fthost": lambda it=mpirun: run(it, threads), "FSDP2": lambda it=theirs: run(it, threads)}
            results = alternate(sides, arguments.pairs, f"{kind}, {ranks} ranks: ")
            title = f"{kind}, {ranks} rank{'s' if ranks > 1 else ''} of {threads} thread{'s' if threads > 1 else ''}"
            found[title] = {"measurements": results, "compared": print_table(results, title)}
    write(arguments.json, found)


if __name__ == "__main__":
    main()
