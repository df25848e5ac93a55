"""Cases of the evaluators that no other program is the reference of: their formulas, written out anew with numpy.

Written with Python 3.11, numpy 2.4, sacrebleu 2.6.0:
    python tests/golden/generate/evaluator_cases.py
Writes `cases/*.jsonl` of plugins/{diversity,perplexity,...}. Intervals are drawn as in `text_metrics.py`.
"""
import numpy as np

from text_metrics import bag_f1, bleu, calibrated, figure, interval, mean_interval, mixed, write_cases
from text_metrics_pairs import PAIRS

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


# Coherence.


def cosine(a, b):
    a, b = np.float32(a).astype(float), np.float32(b).astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def coherence_case(name, config, answers, vectors=(), logprobs=()):
    """`answers` are pairs of a text and the number of its sentences; vectors and log-probabilities are in order."""
    expected, details, counted = {}, [{} for _ in answers], sum(count < 2 for _, count in answers)
    for measure in config.get("measures", ["embedding"]):
        each, at = [], 0
        for detail, (_, count) in zip(details, answers):
            if count < 2:
                continue
            if measure == "embedding":
                own = vectors[at : at + count]
                pairs, at = [cosine(a, b) for a, b in zip(own, own[1:])], at + count
            else:
                own = logprobs[at : at + 2 * (count - 1)]
                pairs, at = [a[0] / a[1] - b[0] / b[1] for a, b in zip(own[::2], own[1::2])], at + len(own)
            detail[measure] = float(np.mean(pairs))
            each.append(detail[measure])
        expected[measure] = figure(float(np.mean(each)), mean_interval(each) if len(each) > 1 else None)
    if counted:
        expected["one_sentence"] = counted
    host = {"embed": list(vectors)} if vectors else {}
    host |= {"logprobs": list(logprobs)} if logprobs else {}
    samples = [{"completion": it} for it, _ in answers]
    return {"name": name, "config": config, "host": host, "samples": samples, "expected_metrics": expected, "expected_details": details}


def coherence_cases():
    answers = [("It rained. We stayed in. Then the sun came out!", 3), ("Yes.", 1), ("今天下雨。我们没有出门。", 2)]
    vectors = [[1, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8], [0.5, 0.5, 0.7], [0.5, -0.5, 0.7]]
    logprobs = [[-4, 4], [-6, 4], [-9.5, 6], [-9, 6], [-5, 5], [-12.5, 5]]
    return [
        coherence_case("vectors of neighbouring sentences", {}, answers, vectors=vectors),
        coherence_case("what a sentence tells of the next", {"measures": ["gain"]}, answers, logprobs=logprobs),
        coherence_case("both", {"measures": ["embedding", "gain"], "model": "reference"}, answers, vectors, logprobs),
        {"name": "nothing before a sentence is refused", "config": {"neutral": ""}, "expected_problem": "neutral"},
    ]


# Judge.

RUBRIC = ["relevance", "fluency", "informativeness", "correctness"]


def judge_case(name, config, judgements, scores, criteria=RUBRIC, answers=None):
    """`scores`: of each answer its judgements' scores, None where one can't be read."""
    expected, details = {}, [{} for _ in scores]
    for at, criterion in enumerate(criteria):
        each = []
        for detail, own in zip(details, scores):
            read = [it[at] for it in own if it[at] is not None]
            if read:
                detail[criterion] = float(np.mean(read))
                each.append(detail[criterion])
        if each:
            expected[criterion] = figure(float(np.mean(each)), mean_interval(each) if len(each) > 1 else None)
    means = [float(np.mean([it[name] for name in criteria])) for it in details if len(it) == len(criteria)]
    if means:
        expected["mean"] = figure(float(np.mean(means)), mean_interval(means) if len(means) > 1 else None)
    unreadable = [float(None in it) for own in scores for it in own]
    expected["unreadable"] = figure(float(np.mean(unreadable)), mean_interval(unreadable))
    samples = answers or [{"prompt": "Capital of France?", "completion": "Paris.", "reference": "Paris"}] * len(scores)
    return {"name": name, "config": config, "host": {"generate": judgements}, "samples": samples, "expected_metrics": expected, "expected_details": details}


def judge_cases():
    plain = '{"relevance": 5, "fluency": 4, "informativeness": 3, "correctness": 5}'
    fenced = "My verdict:\n```json\n" + plain.replace("5", "2") + "\n```"
    lines = "Relevance: 4/5\n**Fluency**: 4\nInformativeness (1-5): 2\nCorrectness - 1"
    chinese = "相关性：４分\n流畅性：5分\n信息量：3\n正确性：5/5"
    none = [None] * 4
    lone = [{"name": "politeness", "description": "it is polite"}]
    return [
        judge_case("JSON, fenced JSON, lines", {"model": "judges.strict"}, [plain, fenced, lines], [[[5, 4, 3, 5]], [[2, 4, 3, 2]], [[4, 4, 2, 1]]]),
        judge_case("what can't be read is counted and no score", {}, [plain, "I'd rather not say.", '{"relevance": 9, "fluency": 4}'], [[[5, 4, 3, 5]], [none], [[None, 4, None, None]]]),
        judge_case("Chinese", {"language": "zh"}, [chinese, "我无法评判。"], [[[4, 5, 3, 5]], [none]], answers=[{"prompt": "法国的首都？", "completion": "巴黎。", "reference": "巴黎"}, {"prompt": "？", "completion": "不知道。"}]),
        judge_case("several judgements are averaged", {"judgements": 2, "temperature": 0.7}, [plain, lines, plain, "no"], [[[5, 4, 3, 5], [4, 4, 2, 1]], [[5, 4, 3, 5], none]]),
        judge_case("a rubric of one's own", {"criteria": lone}, ["4", "Politeness: 2 out of 5"], [[[4]], [[2]]], criteria=["politeness"]),
        {"name": "several judgements by greedy decoding are refused", "config": {"judgements": 3}, "expected_problem": "temperature"},
        {"name": "a template that asks for what is not there is refused", "config": {"template": "{{ question }}"}, "expected_problem": "template"},
    ]


# Calibration.


def calibration_case(name, config, host, samples, confidences, right, extra=None):
    bins = config.get("bins", 10)
    score = lambda part: lambda drawn: part([confidences[it] for it in drawn], [right[it] for it in drawn])
    parts = {
        "ece": lambda c, r: calibrated(c, r, bins)["expected_error"],
        "mce": lambda c, r: calibrated(c, r, bins)["maximum_error"],
        "brier": lambda c, r: calibrated(c, r, bins)["brier"],
        "accuracy": lambda c, r: float(np.mean(r)),
        "mean_confidence": lambda c, r: float(np.mean(c)),
    }
    expected = {it: figure(part(confidences, right), interval(len(right), score(part))) for it, part in parts.items()}
    return {"name": name, "config": config, "host": host, "samples": samples, "expected_metrics": expected | (extra or {})}


def calibration_cases():
    def answered(*pairs):
        return [{"completion": answer, "reference": expected} for answer, expected in pairs]

    pairs = answered(("Paris.", "paris"), ("the Rome", "Rome"), ("Oslo", "Bern"), ("北京！", "北京"), ("Lyon", "Paris"))
    logprobs = [[-0.5, 2], [-0.2, 1], [-2.4, 3], [-0.1, 2], [-3, 1]]
    right = [True, True, False, True, False]
    stated = answered(("It is Paris. Confidence: 90%", "Paris"), ("Bern, confidence 0.4", "Oslo"), ("是北京。置信度：75%", "北京"), ("no idea", "Rome"))
    choice = lambda answer: {"prompt": "2 + 2 =", "completion": "", "columns": {"choices": ["3", "4", "5"], "answer": answer}}
    of_three = [[-3, 1], [-1, 1], [-2, 1], [-1, 1], [-2, 1], [-4, 2], [-2, 1], [-2.5, 1], [-1, 1]]
    shares = []
    for at in range(0, 9, 3):
        likely = np.exp([it[0] for it in of_three[at : at + 3]])
        shares.append(float(likely.max() / likely.sum()))
    per_token = calibration_case("the answer's tokens", {}, {"logprobs": logprobs}, pairs, [float(np.exp(s / n)) for s, n in logprobs], right)
    return [
        per_token,
        calibration_case("the whole answer, in five bins", {"source": "sequence", "bins": 5}, {"logprobs": logprobs}, pairs, [float(np.exp(s)) for s, _ in logprobs], right),
        calibration_case("what the answer states", {"source": "stated", "right": "contains"}, {}, stated, [0.9, 0.4, 0.75], [True, False, True], {"without_confidence": 1}),
        calibration_case("choices, by text, letter and position", {"source": "choices", "column": "answer"}, {"logprobs": of_three}, [choice("4"), choice("B"), choice(2)], shares, [True, False, True]),
        {"name": "no bin is refused", "config": {"bins": 0}, "expected_problem": "bins"},
    ]


# Words that should not be there.


def toxicity_case(name, config, texts, counts):
    share = [float(it > 0) for it in counts]
    return {
        "name": name,
        "config": config,
        "samples": [{"completion": it} for it in texts],
        "expected_metrics": {
            "share": figure(float(np.mean(share)), mean_interval(share)),
            "words": figure(float(np.mean(counts)), mean_interval(counts)),
        },
        "expected_details": [{"words": it} for it in counts],
    }


def toxicity_cases():
    return [
        toxicity_case("whole words, any case", {}, ["You IDIOT, shut up!", "An idiotic idea, Stupidity.", "Thank you.", "Damn, damn."], [2, 0, 0, 2]),
        toxicity_case("inside of other text where scripts write words together", {}, ["你这个笨蛋，闭嘴！", "請你閉嘴", "ばかではなくバカだ、黙れ", "너는 바보야", "ไม่โง่นะ", "今天天气很好。"], [2, 1, 2, 1, 1, 0]),
        toxicity_case("other scripts by whole words", {}, ["Ты дурак?", "дурака", "هذا غبي", "वह मूर्ख है", "Quel cre\u0301tin !"], [1, 0, 1, 1, 1]),
        toxicity_case("one language", {"languages": ["zh"]}, ["stupid 混蛋", "stupid"], [1, 0]),
        toxicity_case("words of one's own", {"lists": [], "words": ["foo bar", "糟"]}, ["a FOO bar", "foo, bar", "糟糕"], [1, 0, 1]),
        {"name": "a list that is not there is refused", "config": {"lists": ["mine.txt"]}, "expected_problem": "lists"},
        {"name": "a language that no list has is refused", "config": {"languages": ["xx"]}, "expected_problem": "languages"},
        {"name": "no word at all is refused", "config": {"lists": []}, "expected_problem": "lists"},
    ]


# Exact match and F1.


def wilson(right):
    z, n, share = 1.959963984540054, len(right), float(np.mean(right))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(centre - half, 0.0), min(centre + half, 1.0)]


def exact_case(name, config, pairs, exact, f1):
    return {
        "name": name,
        "config": config,
        "samples": [{"completion": a, "reference": b} for a, b in pairs],
        "expected_metrics": {"exact_match": figure(float(np.mean(exact)), wilson(exact)), "f1": figure(float(np.mean(f1)), mean_interval(f1))},
        "expected_details": [{"exact_match": a, "f1": b} for a, b in zip(exact, f1)],
    }


def exact_cases():
    names = ("plain", "identical", "simplified Chinese", "Chinese with Latin letters", "Japanese", "Korean", "German", "Arabic", "Chinese, identical")
    pairs = [(answer, expected[0]) for name, answer, expected in PAIRS if name in names] + [("《红楼梦》。", "红楼梦"), ("the Rome!", "rome")]
    exact = [float(mixed(a) == mixed(b)) for a, b in pairs]
    squad = [("The cat sat.", "a cat sat"), ("cat cat dog", "cat dog bird"), ("x", "y"), ("", "")]
    return [
        exact_case("every script", {"compare": "multilingual"}, pairs, exact, [bag_f1(a, b) for a, b in pairs]),
        # By hand: two of three words shared.
        exact_case("SQuAD", {"compare": "squad"}, squad, [1.0, 0.0, 0.0, 1.0], [1.0, 2 / 3, 0.0, 1.0]),
        # F1 is of words: `a2b1` is one.
        exact_case("JSON by value", {"compare": "json"}, [('{"b": 1, "a": 2}', '{"a":2,"b":1}'), ("no", "no")], [1.0, 0.0], [0.0, 1.0]),
        {"name": "an unknown way to compare is refused", "config": {"compare": "fuzzy"}, "expected_problem": "compare"},
    ]


def main():
    write_cases("diversity", "diversity", diversity_cases())
    write_cases("perplexity", "perplexity", perplexity_cases())
    write_cases("coherence", "coherence", coherence_cases())
    write_cases("judge", "judge", judge_cases())
    write_cases("calibration", "calibration", calibration_cases())
    write_cases("toxicity-words", "toxicity_words", toxicity_cases())
    write_cases("exact-and-f1", "exact_and_f1", exact_cases())


if __name__ == "__main__":
    main()
