"""Fine-tuning steps on rows of equal length, ours and PyTorch in turns: tokens/s, CPU seconds and peak memory.

    python host/engine/benches/against_peft.py MODEL_FOLDER [--full] [--gradient-checkpointing] [--every-n N]
        [--gradient-release] [--pairs 5] [--steps 5] [--threads 2] [--batch 4] [--length 256] [--json FILE]

The Python that runs this needs torch, transformers and peft. Both sides train LoRA of rank 16 on every linear layer of
the blocks, or with `--full` every weight (against transformers alone), on 4 rows of 256 random tokens, all supervised, in
f32, with clipping; the peer uses sdpa attention and torch's AdamW as it comes. Nothing is computed again in backward on
either side; with `--gradient-checkpointing` every block is, on both; with `--every-n N` ours does more than the
peer: it computes every N-th block again; with `--gradient-release` ours updates a block as soon as its gradients are
there, and neither side clips, which needs them all. Each measurement is a process of its own; the steps of a pair take
turns, the first warms up, and a step's time is the median of the rest. Ratios are ours to theirs: above 1 is better for
tokens/s, below 1 for memory and CPU seconds. Machines are shared and noisy: read ratios of one run, with the load beside them.
"""
import argparse
import json
import sys

from peers import StepClock, alternate_steps, bench_binary, parser, print_table, wait_for_turn, write

RANK = 16


def peer(arguments: argparse.Namespace) -> None:
    """One measurement of PyTorch, printed as JSON; runs in a process of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="sdpa")
    vocab_size = model.config.vocab_size
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not arguments.full:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    model.train()
    trained = [it for it in model.parameters() if it.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    clock = StepClock()
    for _ in range(arguments.steps + 1):
        ids = torch.randint(0, vocab_size, (arguments.batch, arguments.length))
        if arguments.turns:
            wait_for_turn()
        clock.begin()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        if not arguments.gradient_release:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.end()
    print(json.dumps(clock.report(arguments.batch * arguments.length)))


def shape(arguments: argparse.Namespace) -> list[str]:
    """What both sides are told in the same words."""
    told = ["--batch", arguments.batch, "--length", arguments.length, "--steps", arguments.steps]
    return [str(it) for it in told] + ["--full"] * arguments.full + ["--gradient-release"] * arguments.gradient_release


def ours(binary: str, arguments: argparse.Namespace) -> list[str]:
    """The command of one measurement of ours."""
    some = f"first-{arguments.first_n}" if arguments.first_n else str(arguments.every_n or "off")
    checkpointing = "block" if arguments.gradient_checkpointing else some
    command = [binary, arguments.model, "--rank", str(RANK), "--activation-checkpointing", checkpointing]
    return command + shape(arguments)


def theirs(arguments: argparse.Namespace) -> list[str]:
    """The command of one measurement of the peer."""
    command = [sys.executable, __file__, arguments.model, "--peer", "--threads", str(arguments.threads)]
    command += ["--gradient-checkpointing"] * arguments.gradient_checkpointing
    return command + shape(arguments)


def run(arguments: argparse.Namespace) -> dict:
    """All pairs; prints the table and gives the measurements and what they amount to."""
    binary = arguments.ours or bench_binary("sft_step")
    name, what = ("transformers", "full fine-tuning") if arguments.full else ("PEFT", f"LoRA of rank {RANK}")
    commands = {"ours": ours(binary, arguments), name: theirs(arguments)}
    commands = {name: [*command, "--turns"] for name, command in commands.items()}
    results = alternate_steps(commands, arguments.threads, arguments.steps + 1, arguments.pairs)
    checkpointed = ", blocks computed again in backward" if arguments.gradient_checkpointing else ""
    if arguments.every_n:
        which = "every block" if arguments.every_n == 1 else f"one block in {arguments.every_n}"
        checkpointed = f", ours with {which} computed again"
    if arguments.first_n:
        checkpointed = f", ours with the first {arguments.first_n} blocks computed again"
    if arguments.gradient_release:
        checkpointed += ", no clipping, ours updated block by block"
    title = f"{what}, {arguments.batch} x {arguments.length} tokens{checkpointed}"
    return {"measurements": results, "compared": print_table(results, title)}


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    known = parser(__doc__)
    known.add_argument("--batch", type=int, default=4)
    known.add_argument("--length", type=int, default=256)
    known.add_argument("--full", action="store_true", help="train every weight, against transformers alone")
    known.add_argument("--gradient-checkpointing", action="store_true", help="compute every block again, on both sides")
    known.add_argument("--every-n", type=int, help="compute every n-th block again, on our side alone")
    known.add_argument("--first-n", type=int, help="compute the first n blocks again, on our side alone")
    known.add_argument("--gradient-release", action="store_true", help="ours updates block by block; neither side clips")
    known.add_argument("--turns", action="store_true", help=argparse.SUPPRESS)
    return known.parse_args(given)


def main() -> None:
    arguments = arguments_of()
    if arguments.peer:
        return peer(arguments)
    write(arguments.json, run(arguments))


if __name__ == "__main__":
    main()
