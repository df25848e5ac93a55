"""Cases of the evaluators that no other program is the reference of: their formulas, written out anew with numpy.

Written with Python 3.11, numpy 2.4, sacrebleu 2.6.0:
    python tests/golden/generate/evaluator_cases.py
Writes `cases/*.jsonl` of plugins/{diversity,perplexity,...}. Intervals are drawn as in `text_metrics.py`.
"""
import numpy as np

from text_metrics import bleu, figure, interval, mean_interval, write_cases

CHINESE = ["今天天气很好，我们去公园散步。", "今天天气很好，我们去看电影。", "我们去公园。", "明天见！"]
ENGLISH = ["the cat sat on the mat", "the cat sat on the mat", "a dog barked", "the dog sat on a cat", "yes"]


# Diversity.


def ngrams(words, n):
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def distinct(texts, n):
    every = [it for text in texts for it in ngrams(text, n)]
    return len(set(every)) / len(every) if every else np.nan


def diversity_case(name, config, texts, prompts=None, orders=(1, 2, 3)):
    metric = bleu({**config, "effective_order": True})
    words = [metric.tokenizer(it).split() for it in texts]
    expected = {}
    for n in orders:
        share = distinct(words, n)
        drawn = []
        keep = lambda picked: drawn.append(distinct([words[it] for it in picked], n)) or drawn[-1]
        low, high = interval(len(words), keep)
        # Drawing a text twice makes it smaller: by so much on average.
        shift = share - np.nanmean(drawn)
        expected[f"distinct_{n}"] = figure(share, [low + shift, high + shift])
    groups = {}
    for prompt, text in zip(prompts or [""] * len(texts), texts):
        groups.setdefault(prompt if config.get("self_bleu") == "prompt" else "", []).append(text)
    each = [
        metric.sentence_score(text, group[:at] + group[at + 1 :]).score
        for _, group in sorted(groups.items())
        for at, text in enumerate(group)
        if len(group) > 1
    ]
    expected["self_bleu"] = figure(float(np.mean(each)), mean_interval(each))
    samples = [{"completion": it} for it in texts]
    for sample, prompt in zip(samples, prompts or []):
        sample["prompt"] = prompt
    details = [{f"distinct_{n}": distinct([it], n) for n in orders if len(it) >= n} for it in words]
    if config.get("distinct"):
        config = {**config, "distinct": list(orders)}
    return {"name": name, "config": config, "samples": samples, "expected_metrics": expected, "expected_details": details}


def diversity_cases():
    return [
        diversity_case("words", {}, ENGLISH, orders=(1, 2, 3)),
        diversity_case("Chinese by characters", {"tokenizer": "zh"}, CHINESE),
        diversity_case("answers to one prompt", {"self_bleu": "prompt", "distinct": [1]}, ENGLISH, ["a", "a", "b", "b", "c"], orders=(1,)),
        {"name": "n-grams of no word are refused", "config": {"distinct": [0]}, "expected_problem": "distinct"},
    ]


# Perplexity.


def perplexity_case(name, config, samples, texts, logprobs, whose):
    """`texts` and `logprobs` are in the order asked for, `whose` says what each is of."""
    expected, details = {}, [{} for _ in samples]
    for kind in dict.fromkeys(whose):
        rows = np.array([[s, n, len(text.encode())] for text, (s, n), it in zip(texts, logprobs, whose) if it == kind])
        figures = {
            "perplexity": lambda sums: float(np.exp(-sums[0] / sums[1])),
            "byte_perplexity": lambda sums: float(np.exp(-sums[0] / sums[2])),
            "bits_per_byte": lambda sums: float(-sums[0] / sums[2] / np.log(2)),
        }
        for figure_name, score in figures.items():
            sampled = interval(len(rows), lambda drawn: score(rows[drawn].sum(0))) if len(rows) > 1 else None
            expected[f"{figure_name}_{kind}"] = figure(score(rows.sum(0)), sampled)
        for detail, row in zip(details, rows):
            detail[f"perplexity_{kind}"] = figures["perplexity"](row)
            detail[f"bits_per_byte_{kind}"] = figures["bits_per_byte"](row)
    return {"name": name, "config": config, "host": {"logprobs": logprobs}, "samples": samples, "expected_metrics": expected, "expected_details": details}


def perplexity_cases():
    samples = [
        {"prompt": "Capital of France?", "completion": "Paris is the capital.", "reference": "Paris"},
        {"prompt": "首都？", "completion": "北京是首都。", "reference": "北京"},
        {"prompt": "Sky?", "completion": "Blue.", "reference": "The sky is blue."},
    ]
    references = [it["reference"] for it in samples]
    both = [text for it in samples for text in (it["reference"], it["completion"])]
    empty = perplexity_case("texts that are absent or empty are counted", {"of": ["answer"]}, [samples[0]], ["Paris is the capital."], [[-6.5, 5]], ["answer"])
    empty["samples"] = [samples[0], {"completion": ""}]
    empty["expected_metrics"]["without_text"] = 1
    empty["expected_details"].append({})
    return [
        perplexity_case("expected answers", {}, samples, references, [[-1.25, 2], [-3.5, 4], [-7.75, 5]], ["reference"] * 3),
        perplexity_case(
            "both, by a judge",
            {"of": ["reference", "answer"], "model": "judges.large"},
            samples,
            both,
            [[-1.25, 2], [-6.5, 6], [-3.5, 4], [-9.0, 8], [-7.75, 5], [-0.5, 2]],
            ["reference", "answer"] * 3,
        ),
        empty,
        {"name": "a model that can't be named is refused", "config": {"model": "gpt"}, "expected_problem": "model"},
    ]


def main():
    write_cases("diversity", "diversity", diversity_cases())
    write_cases("perplexity", "perplexity", perplexity_cases())


if __name__ == "__main__":
    main()
