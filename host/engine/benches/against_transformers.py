"""Generation, ours and a peer in turns: transformers' `generate`, then llama.cpp. Tokens/s, CPU seconds, peak memory.

    python host/engine/benches/against_transformers.py MODEL_FOLDER [--pairs 3] [--batch 1 8] [--prompt 32]
        [--new-tokens 64] [--repeat 3] [--threads 2] [--peers transformers llama.cpp] [--sample]

The Python that runs this needs torch and transformers; llama.cpp also llama-cpp-python and gguf, and is left out, loudly,
where they are missing. Greedy, or with `--sample` as a rollout is, which llama.cpp has no part in: temperature 1, drawn from all tokens;
ours then notes the log-probability of each token, transformers does not. Both sides continue random prompts of equal length in f32; no
token ends an answer. Each measurement is a process of its own: one call warms up, the median of `--repeat` counts, reading
the prompts included. Ratios are ours to theirs: above 1 is better for tokens/s, below 1 for memory and CPU seconds.
Machines are shared and noisy: read ratios of one run, with the load printed beside them.
"""
import argparse
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import llama_cpp_peer
from peers import alternate, bench_binary, measure, parser, print_table, write


def peer(arguments: argparse.Namespace) -> None:
    """One measurement of transformers, printed as JSON; runs in a process of its own."""
    import time

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = torch.randint(0, model.config.vocab_size, (arguments.batch[0], arguments.prompt))
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if arguments.sample else {"do_sample": False}
    seconds = []
    for _ in range(arguments.repeat + 1):
        begin = time.perf_counter()
        with torch.no_grad():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=arguments.new_tokens,
                           eos_token_id=None, pad_token_id=0, **how)
        seconds.append(time.perf_counter() - begin)
    tokens = arguments.batch[0] * arguments.new_tokens
    print(json.dumps({"tokens_per_second": tokens / statistics.median(seconds[1:]), "seconds": seconds}))


def llama_cpp(arguments: argparse.Namespace) -> None:
    """One measurement of llama.cpp; runs in a process of its own."""
    llama_cpp_peer.peer(arguments.gguf, arguments.batch[0], arguments.prompt, arguments.new_tokens, arguments.threads, arguments.repeat)


def shape(arguments: argparse.Namespace, batch: int) -> list[str]:
    told = ["--batch", batch, "--prompt", arguments.prompt, "--new-tokens", arguments.new_tokens, "--repeat", arguments.repeat]
    return [str(it) for it in told] + ["--sample"] * arguments.sample


def run(arguments: argparse.Namespace) -> dict:
    """All pairs of every batch and peer; prints their tables and gives the measurements and what they amount to."""
    binary = arguments.ours or bench_binary("generate")
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.peers:
            told = ["--peer", "--threads", str(arguments.threads), "--peers", name]
            if name == "llama.cpp":
                missing = [it for it in llama_cpp_peer.PACKAGES if importlib.util.find_spec(it) is None]
                if missing:
                    print(f"SKIPPED llama.cpp: not installed: {', '.join(missing)}", flush=True)
                    continue
                gguf = pathlib.Path(folder) / "f32.gguf"
                subprocess.run([sys.executable, llama_cpp_peer.__file__, arguments.model, str(gguf)], check=True)
                told += ["--gguf", str(gguf)]
            for batch in arguments.batch:
                command = [binary, arguments.model, *shape(arguments, batch)]
                other = [sys.executable, __file__, arguments.model, *told, *shape(arguments, batch)]
                sides = {it: lambda it=of: measure(it, arguments.threads) for it, of in (("ours", command), (name, other))}
                results = alternate(sides, arguments.pairs, f"batch {batch}, ")
                compared = print_table(results, f"batch {batch}")
                found = {"batch": batch, "peer": name, "ours": results["ours"], "theirs": results[name]}
                comparisons.append(found | {"compared": compared})
    return {"comparisons": comparisons}


def main() -> None:
    known = parser(__doc__, pairs=3)
    known.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    known.add_argument("--prompt", type=int, default=32)
    known.add_argument("--new-tokens", type=int, default=64)
    known.add_argument("--repeat", type=int, default=3, help="calls of a measurement that count")
    known.add_argument("--peers", nargs="+", choices=["transformers", "llama.cpp"], default=["transformers", "llama.cpp"])
    known.add_argument("--gguf", type=pathlib.Path, help=argparse.SUPPRESS)
    known.add_argument("--sample", action="store_true", help="sampled, not greedy")
    arguments = known.parse_args()
    if arguments.sample and "llama.cpp" in arguments.peers:
        known.error("--sample is for `--peers transformers`")
    if arguments.peer:
        return llama_cpp(arguments) if arguments.gguf else peer(arguments)
    write(arguments.json, run(arguments))


if __name__ == "__main__":
    main()
