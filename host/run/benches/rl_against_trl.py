"""Preferences and rollouts, ours and TRL's in turns: pairs/s of DPO, seconds of a whole GRPO step.

    python host/run/benches/rl_against_trl.py MODEL_FOLDER --what dpo|grpo [--pairs 5] [--steps 6] [--threads 2]
        [--prompt 64 --answer 64] [--ours FTHOST] [--json FILE]

The Python that runs this needs torch, transformers, peft, trl and datasets. Both train LoRA of rank 8 on every linear layer
in f32, with clipping, without computing anything again in backward.

`dpo`: pairs of one prompt of `--prompt` tokens and two answers of `--answer` tokens each, made of random words of the
vocabulary, 4 a step, the reference being the same weights with the adapter off. `grpo`: the recipe `addition`, 32 completions
of at most 6 tokens a step, 8 of a prompt, no reference; our reward is the plugin `answer-match`, theirs a Python function.
TRL's own `generate` makes its completions. Both sides sample by themselves, so tokens differ a little: what is compared is the
time of a step of 32 completions. TRL is given sdpa and f32; its defaults (checkpointing, bf16) are slower here.

A step's time runs from the step before; the first two warm up. Ratios are ours to theirs.
"""
import argparse
import json
import pathlib
import random
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "host/engine/benches"))
from peers import StepClock, alternate, measure, parser, print_table, program, write  # noqa: E402

RANK, WARM_UP, PAIRS_A_STEP, COMPLETIONS = 8, 2, 4, 32
RECIPE = ROOT / "host/recipes/addition"


def random_pairs(model: str, count: int, prompt: int, answer: int) -> list[dict]:
    """Rows whose tokenised lengths are exact: whole words that are one token with a space before them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    words = [it for it in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]{4,8}", it)]
    words = sorted(it[1:] for it in words)
    draw = random.Random(0)
    text = lambda length: "".join(" " + draw.choice(words) for _ in range(length))  # noqa: E731
    return [{"prompt": text(prompt), "chosen": text(answer), "rejected": text(answer)} for _ in range(count)]


def report(seconds: list[float], cpu: list[float], unit: int) -> dict:
    """`tokens_per_second` is what the tables know: here units (pairs, completions) a second."""
    seconds, cpu = seconds[WARM_UP:], cpu[WARM_UP:]
    return {"tokens_per_second": unit * len(seconds) / sum(seconds), "step_cpu_seconds": cpu, "warm_up": 0,
            "step_seconds": seconds}


def peer(arguments: argparse.Namespace) -> None:
    """One measurement of TRL, printed as JSON; runs in a process of its own."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback

    torch.set_num_threads(arguments.threads)
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    data = datasets.load_dataset("json", data_files=arguments.data, split="train")
    clock = StepClock()

    class Counting(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            clock.begin()

        def on_step_end(self, *args, **kwargs):
            clock.end()
            clock.begin()

    common = dict(
        output_dir=tempfile.mkdtemp(), max_steps=arguments.steps + WARM_UP, learning_rate=2e-4, gradient_checkpointing=False,
        bf16=False, use_cpu=True, max_grad_norm=1.0, report_to="none", save_strategy="no", logging_strategy="no",
        disable_tqdm=True, seed=0, dataloader_pin_memory=False,
        model_init_kwargs={"dtype": torch.float32, "attn_implementation": "sdpa"},
    )
    lora = LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    if arguments.what == "dpo":
        from trl import DPOConfig, DPOTrainer

        config = DPOConfig(per_device_train_batch_size=PAIRS_A_STEP, beta=0.1, max_length=None, **common)
        trainer = DPOTrainer(arguments.model, args=config, train_dataset=data, processing_class=tokenizer,
                             peft_config=lora, callbacks=[Counting()])
    else:
        from trl import GRPOConfig, GRPOTrainer

        def right(completions, answer, **_):
            found = [re.findall(r"\d+", it.split("\n")[0]) for it in completions]
            return [float(bool(it) and int(it[-1]) == expected) for it, expected in zip(found, answer)]

        config = GRPOConfig(per_device_train_batch_size=COMPLETIONS, num_generations=8, max_completion_length=6, beta=0.0,
                            temperature=1.0, **common)
        trainer = GRPOTrainer(arguments.model, args=config, train_dataset=data, processing_class=tokenizer,
                              reward_funcs=right, peft_config=lora, callbacks=[Counting()])
    trainer.train()
    unit = PAIRS_A_STEP if arguments.what == "dpo" else COMPLETIONS
    print(json.dumps(report(clock.wall, clock.cpu, unit)))


def read_run(unit: int):
    """The report of a `fthost run --json`: a step's time runs from the line of the step before."""

    def read(lines: list) -> dict:
        told = [(it, json.loads(it.text)) for it in lines]
        before = next(line for line, it in told if it["event"] == "plan")
        seconds, cpu = [], []
        for line in (line for line, it in told if it["event"] == "step"):
            seconds.append(line.seconds - before.seconds)
            cpu.append((line.cpu_seconds or before.cpu_seconds) - before.cpu_seconds)
            before = line
        return report(seconds, cpu, unit)

    return read


def ours(binary: str, arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
    """One measurement of `fthost run`."""
    file = folder / "run.toml"
    steps = arguments.steps + WARM_UP
    objective = {
        "dpo": f"[objective.dpo]\nbeta = 0.1\n[train]\nsteps = {steps}\nmicro_batch_size = {PAIRS_A_STEP}\n",
        "grpo": f"[objective.grpo]\n[rollout]\nnum_generations = 8\nmax_completion_length = 6\nlog_completions_every = 0\n"
                f"[plugins.answer-match.config]\nextract = [\"last_number\"]\n"
                f"[train]\nsteps = {steps}\nmicro_batch_size = {COMPLETIONS}\n",
    }[arguments.what]
    file.write_text(f"""
[model]
path = {json.dumps(arguments.model)}
[data]
files = [{json.dumps(arguments.data)}]
max_length = 512
cache = false
[adapter.lora]
rank = {RANK}
alpha = 16
target_modules = "all-linear"
[optimizer.adamw]
learning_rate = 2e-4
[eval]
before = false
after = false
[output]
dir = {json.dumps(str(folder / "out"))}
{objective}
""")
    unit = PAIRS_A_STEP if arguments.what == "dpo" else COMPLETIONS
    return measure([binary, "run", str(file), "--json", "--overwrite"], arguments.threads, read_run(unit))


def theirs(arguments: argparse.Namespace) -> dict:
    """One measurement of TRL."""
    told = ["--what", arguments.what, "--data", arguments.data, "--steps", arguments.steps, "--threads", arguments.threads]
    return measure([sys.executable, __file__, arguments.model, "--peer", *map(str, told)], arguments.threads)


def main() -> None:
    known = parser(__doc__, steps=6)
    known.add_argument("--what", choices=("dpo", "grpo"), required=True)
    known.add_argument("--prompt", type=int, default=64)
    known.add_argument("--answer", type=int, default=64)
    known.add_argument("--data", help=argparse.SUPPRESS)
    arguments = known.parse_args()
    if arguments.peer:
        return peer(arguments)
    binary = arguments.ours or program()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if arguments.what == "dpo":
            count = PAIRS_A_STEP * (arguments.steps + WARM_UP)
            rows = random_pairs(arguments.model, count, arguments.prompt, arguments.answer)
            (folder / "pairs.jsonl").write_text("".join(json.dumps(it) + "\n" for it in rows))
            arguments.data = str(folder / "pairs.jsonl")
            title = f"DPO, pairs/s for tokens/s, prompt {arguments.prompt}, answers {arguments.answer}"
        else:
            arguments.data = str(RECIPE / "train.jsonl")
            title = "GRPO, completions/s for tokens/s, whole steps of 32"
        sides = {"ours": lambda: ours(binary, arguments, folder), "TRL": lambda: theirs(arguments)}
        results = alternate(sides, arguments.pairs)
    write(arguments.json, {"measurements": results, "compared": print_table(results, title)})


if __name__ == "__main__":
    main()
