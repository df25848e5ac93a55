"""Rows of real lengths with loss on the assistant's turns, ours and TRL's SFTTrainer in turns: real tokens/s.

    python host/engine/benches/against_trl.py MODEL_FOLDER [--set json|instruction] [--rows-per-step 8]
        [--how padding-free packed grouped padded] [--quant nf4] [--pairs 5] [--steps 8] [--threads 2] [--json FILE]

The Python that runs this needs torch, transformers, peft, trl and datasets; for the instruction set what
`instruction_set.py` says. Both sides read the same JSONL of `messages`: the rows of the recipe `json-extraction` as
conversations, or the instruction set. Both train LoRA of rank 16 on every linear layer in f32, with clipping, without
computing anything again in backward, one pass over the rows. Ours is `fthost run` as it comes, with packing.

TRL is given its best: no gradient checkpointing, f32 (its defaults are checkpointing and bf16, both slower here), sdpa,
and the fastest of the ways that it has on a CPU to lay out rows, each measured once with `--how` naming several:
`padding-free` (the rows of a step end to end, positions that start again), `packed` (`packing`, best fit decreasing, a
step being one line of as many tokens as ours takes in the mean, rounded up to the longest row), `grouped` (rows of like length
share a step, padded), `padded`. sdpa is given a mask that keeps sequences apart, so all ways compute the same loss. With
`--quant` both sides have their frozen linears in 4 bits, in blocks of 64 and doubly quantised: ours by `[quant.nf4]`, TRL by
bitsandbytes, which has to be installed then and computes in f32 too. Assistant
turns are marked by `{% generation %}` in the model's own chat template.

Tokens are real ones, padding aside, over the time of all steps but the first two; a step's time runs from the step before,
so data is included. That both sides see the same tokens in all and supervise the same is checked, and said in the
output; the order of rows differs, so single steps do. Ratios are ours to theirs.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import instruction_set
from peers import ROOT, StepClock, alternate, measure, parser, print_table, program, write

RANK, WARM_UP, MAX_LENGTH = 16, 2, 1024
WAYS = ("padding-free", "packed", "grouped", "padded")


def json_rows(count: int) -> list[dict]:
    """The first rows of the recipe `json-extraction`, as its plugins make conversations of them."""
    lines = (ROOT / "host/recipes/json-extraction/train.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for row in map(json.loads, lines[:count]):
        found.append({"messages": [
            {"role": "system", "content": "Answer with one JSON object."},
            {"role": "user", "content": f"Text: {row['text']}\nJSON:"},
            {"role": "assistant", "content": json.dumps(row["fields"])},
        ]})
    if len(found) < count:
        sys.exit(f"the JSON set has {len(found)} rows, {count} are wanted: take fewer steps or rows a step")
    return found


def training_template(template: str) -> str:
    """The chat template of SmolLM2 with the assistant's turns marked: what is said and the end of the turn."""
    turn = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    marked = (
        "{% if message['role'] == 'assistant' %}{{'<|im_start|>assistant\n'}}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{'\n'}}{% else %}" + turn + "{% endif %}"
    )
    if template.count(turn) != 1:
        sys.exit("the model's chat template is not the one that this bench can mark: it should be SmolLM2's")
    return template.replace(turn, marked)


def peer(arguments: argparse.Namespace) -> None:
    """One measurement of TRL, printed as JSON; runs in a process of its own."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(arguments.threads)
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.chat_template = training_template(tokenizer.chat_template)
    way, rows = arguments.how[0], arguments.rows_per_step
    layout = {
        "padding-free": {"padding_free": True, "max_length": None},
        "packed": {"packing": True, "packing_strategy": "bfd", "max_length": arguments.line},
        "grouped": {"train_sampling_strategy": "group_by_length", "max_length": MAX_LENGTH},
        "padded": {"max_length": MAX_LENGTH},
    }[way]
    kwargs = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    if arguments.quant:
        from transformers import BitsAndBytesConfig

        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=arguments.quant, bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=1 if way == "packed" else rows,
        learning_rate=2e-4, gradient_checkpointing=False, bf16=False, use_cpu=True, assistant_only_loss=True,
        max_grad_norm=1.0, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=0,
        dataloader_pin_memory=False, model_init_kwargs=kwargs, **layout,
    )
    lora = LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    data = datasets.load_dataset("json", data_files=arguments.data, split="train")
    clock, seen = StepClock(), {"tokens": [], "supervised": [], "computed": []}

    class Counting(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            clock.begin()

        def on_step_end(self, *args, **kwargs):
            clock.end()
            clock.begin()

    class Trainer(SFTTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            real = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
            seen["tokens"].append(int(real))
            seen["supervised"].append(int((inputs["labels"] != -100).sum()))
            seen["computed"].append(inputs["input_ids"].numel())
            return super().training_step(model, inputs, *args, **kwargs)

    trainer = Trainer(arguments.model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora,
                      callbacks=[Counting()])
    trainer.train()
    print(json.dumps(report(clock.wall, clock.cpu, seen["tokens"]) | {
        "supervised": sum(seen["supervised"]), "computed": sum(seen["computed"]),
    }))


def report(seconds: list[float], cpu_seconds: list[float], tokens: list[int]) -> dict:
    """Tokens/s of all steps after those that warm up together: steps differ in size."""
    if len(seconds) <= WARM_UP:
        sys.exit(f"{len(seconds)} steps in a pass, {WARM_UP} of which warm up: take more `--steps`")
    return {
        "tokens_per_second": sum(tokens[WARM_UP:]) / sum(seconds[WARM_UP:]),
        "cpu_seconds_per_thousand": 1000 * sum(cpu_seconds[WARM_UP:]) / sum(tokens[WARM_UP:]),
        "tokens": sum(tokens), "step_seconds": seconds, "step_tokens": tokens, "warm_up": WARM_UP,
    }


def read_run(lines: list) -> dict:
    """The report of a `fthost run --json`: a step's time runs from the line of the step before."""
    told = [(it, json.loads(it.text)) for it in lines]
    plan = next(it for _, it in told if it["event"] == "plan")
    steps = [(line, it) for line, it in told if it["event"] == "step"]
    before, seconds, used, tokens = next(line for line, it in told if it["event"] == "plan"), [], [], []
    counted = 0
    for line, it in steps:
        seconds.append(line.seconds - before.seconds)
        used.append(line.cpu_seconds - before.cpu_seconds)
        tokens.append(it["num_tokens"] - counted)
        before, counted = line, it["num_tokens"]
    return report(seconds, used, tokens) | {"supervised": plan["supervised_tokens"], "computed": sum(tokens)}


def ours(binary: str, arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
    """One measurement of `fthost run`."""
    file = folder / "run.toml"
    file.write_text(f"""
[model]
path = {json.dumps(arguments.model)}
[data]
files = [{json.dumps(arguments.data)}]
max_length = {MAX_LENGTH}
[adapter.lora]
rank = {RANK}
alpha = 16
target_modules = "all-linear"
[optimizer.adamw]
learning_rate = 2e-4
[train]
epochs = 1
micro_batch_size = {arguments.rows_per_step}
{f"[quant.{arguments.quant}]" if arguments.quant else ""}
[output]
dir = {json.dumps(str(folder / "out"))}
""")
    return measure([binary, "run", str(file), "--json", "--overwrite"], arguments.threads, read_run)


def theirs(arguments: argparse.Namespace, way: str) -> dict:
    """One measurement of TRL."""
    told = ["--how", way, "--data", arguments.data, "--line", arguments.line]
    told += ["--rows-per-step", arguments.rows_per_step, "--threads", arguments.threads]
    told += ["--quant", arguments.quant] if arguments.quant else []
    return measure([sys.executable, __file__, arguments.model, "--peer", *map(str, told)], arguments.threads)


def check(name: str, one: dict, other: dict) -> None:
    """Says that both sides saw the same, or ends: a ratio would mean nothing."""
    for what in ("tokens", "supervised"):
        if one[what] != other[what]:
            sys.exit(f"ours has {one[what]} {what} in a pass and {name} {other[what]}: not the same work")
    print(f"both see {one['tokens']} real tokens in a pass of {len(one['step_seconds'])} steps of ours and "
          f"{len(other['step_seconds'])} of theirs, {one['supervised']} of them supervised; computed with padding: "
          f"{one['computed']} and {other['computed']}")


def run(arguments: argparse.Namespace) -> dict:
    """All pairs; prints the tables and gives the measurements and what they amount to."""
    binary = arguments.ours or program()
    count = arguments.rows_per_step * (arguments.steps + WARM_UP)
    made = json_rows(count) if arguments.set == "json" else instruction_set.rows(count, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data = folder / "rows.jsonl"
        data.write_text("".join(json.dumps(it) + "\n" for it in made), encoding="utf-8")
        arguments.data = str(data)
        first = ours(binary, arguments, folder)
        arguments.line = max(longest(arguments.model, made), -(-first["tokens"] // (arguments.steps + WARM_UP)))
        tried = {}
        for way in arguments.how:
            tried[way] = theirs(arguments, way) if len(arguments.how) > 1 else None
            if tried[way]:
                print(f"TRL {way}: {tried[way]['tokens_per_second']:.1f} tokens/s", flush=True)
                check(f"TRL {way}", first, tried[way])
        best = max(tried, key=lambda it: tried[it]["tokens_per_second"] if tried[it] else 0)
        name = f"TRL {best}"
        sides = {"ours": lambda: ours(binary, arguments, folder), name: lambda: theirs(arguments, best)}
        results = alternate(sides, arguments.pairs)
    check(name, results["ours"][0], results[name][0])
    mean = first["tokens"] / count
    title = f"{arguments.set} set, {count} rows of {mean:.0f} tokens in the mean, {arguments.rows_per_step} a step"
    title += f", {arguments.quant}" if arguments.quant else ""
    return {"measurements": results, "compared": print_table(results, title), "tried": tried}


def longest(model: str, rows: list[dict]) -> int:
    """Tokens of the longest row."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return max(len(tokenizer.apply_chat_template(it["messages"], return_dict=True)["input_ids"]) for it in rows)


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    known = parser(__doc__, steps=8)
    known.add_argument("--set", choices=("json", "instruction"), default="json")
    known.add_argument("--rows-per-step", type=int, default=8)
    known.add_argument("--how", nargs="+", choices=WAYS, default=list(WAYS))
    known.add_argument("--quant", choices=("nf4", "fp4"))
    known.add_argument("--data", help=argparse.SUPPRESS)
    known.add_argument("--line", type=int, help=argparse.SUPPRESS)
    return known.parse_args(given)


def main() -> None:
    arguments = arguments_of()
    if arguments.peer:
        return peer(arguments)
    write(arguments.json, run(arguments))


if __name__ == "__main__":
    main()
