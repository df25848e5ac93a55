"""BLEU, chrF and tokenisers as sacrebleu, ROUGE and stems as rouge-score print them; and what follows from these.

Written with Python 3.11, sacrebleu 2.6.0, rouge-score 0.1.2, nltk 3.10.4, numpy 2.4:
    python tests/golden/generate/text_metrics.py
Writes tests/golden/text_metrics.json and, from the same numbers, `cases/*.jsonl` of plugins/{bleu,chrf,rouge,...}.
Options have the names of `plugins/text-metrics`. Intervals are numpy's percentiles over resamples drawn by PCG32,
re-computed by sacrebleu from summed statistics.
"""
import json
import logging
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.bleu import _get_tokenizer

from text_metrics_pairs import PAIRS

ROOT = Path(__file__).resolve().parents[3]
# Sentences without `effective_order` are wanted here, too.
logging.getLogger("sacrebleu").setLevel(logging.ERROR)
TOKENIZERS = ["13a", "intl", "char", "zh", "none"]
ROUGES = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]

BLEUS = [{"tokenizer": it} for it in TOKENIZERS] + [
    {"effective_order": True},
    {"effective_order": True, "tokenizer": "zh"},
    {"effective_order": True, "tokenizer": "char"},
    {"smoothing": {"floor": 0.1}},
    {"smoothing": {"floor": 0.5}, "effective_order": True},
    {"smoothing": {"add-k": 1.0}},
    {"smoothing": {"add-k": 2.0}, "tokenizer": "zh"},
    {"smoothing": "none"},
    {"smoothing": "none", "tokenizer": "char", "effective_order": True},
    {"lowercase": True},
    {"lowercase": True, "tokenizer": "intl", "effective_order": True},
    {"max_order": 2},
    {"max_order": 6, "effective_order": True},
]
CHRFS = [
    {},
    {"word_order": 2},
    {"word_order": 1, "lowercase": True},
    {"beta": 1.0},
    {"beta": 3.0, "word_order": 2},
    {"char_order": 4},
    {"whitespace": True, "word_order": 2},
    {"eps_smoothing": True},
    {"eps_smoothing": True, "word_order": 2},
]
ROUGE_OPTIONS = [{}, {"stemmer": True}] + [{"tokenizer": it} for it in TOKENIZERS[:4]] + [
    {"tokenizer": "zh", "lowercase": True}
]


def bleu(options):
    smoothing = options.get("smoothing", "exp")
    method, value = next(iter(smoothing.items())) if isinstance(smoothing, dict) else (smoothing, None)
    return BLEU(
        lowercase=options.get("lowercase", False),
        force=True,
        tokenize=options.get("tokenizer", "13a"),
        smooth_method=method,
        smooth_value=value,
        max_ngram_order=options.get("max_order", 4),
        effective_order=options.get("effective_order", False),
    )


def chrf(options):
    return CHRF(**options)


class Words:
    """One of sacrebleu's tokenisers, for rouge-score."""

    def __init__(self, name, lowercase):
        self.line, self.lowercase = _get_tokenizer(name)(), lowercase

    def tokenize(self, text):
        text = text.lower() if self.lowercase else text
        return self.line(text.rstrip()).split()


def rouge(options, types=ROUGES):
    words = Words(options["tokenizer"], options.get("lowercase", False)) if "tokenizer" in options else None
    return RougeScorer(types, use_stemmer=options.get("stemmer", False), tokenizer=words)


def overlap(scorer, references, answer):
    scores = scorer.score_multi(references, answer)
    return {name: [it.precision, it.recall, it.fmeasure] for name, it in scores.items()}


def streams(pairs):
    """References as sacrebleu wants them: the first of every pair, the second, and so on; None where there is none."""
    most = max(len(it[2]) for it in pairs)
    return [[it[2][n] if n < len(it[2]) else None for it in pairs] for n in range(most)]


class Pcg32:
    """O'Neill 2014, XSH-RR 64/32, stream 0."""

    def __init__(self, seed):
        self.state = (1 + seed) % 2**64
        self.next()

    def next(self):
        old = self.state
        self.state = (old * 6364136223846793005 + 1) % 2**64
        shifted = (((old >> 18) ^ old) >> 27) & 0xFFFFFFFF
        turn = old >> 59
        return (shifted >> turn | shifted << (-turn & 31)) & 0xFFFFFFFF


def interval(samples, score, resamples=1000, seed=12345):
    random = Pcg32(seed)
    scores = [score([random.next() * samples >> 32 for _ in range(samples)]) for _ in range(resamples)]
    return [float(it) for it in np.nanpercentile(scores, [2.5, 97.5])]


def mean_interval(values, **options):
    return interval(len(values), lambda drawn: sum(values[it] for it in drawn) / len(values), **options)


def corpus_interval(metric, pairs, **options):
    rows = metric._extract_corpus_statistics([it[1] for it in pairs], streams(pairs))
    score = lambda drawn: metric._compute_score_from_stats([sum(rows[it][n] for it in drawn) for n in range(len(rows[0]))])
    return interval(len(rows), lambda drawn: score(drawn).score, **options)


def corpus(name, pairs):
    answers, references = [it[1] for it in pairs], streams(pairs)
    small = {"resamples": 200, "seed": 7}
    return {
        "name": name,
        "pairs": [it[0] for it in pairs],
        "bleu": [bleu(it).corpus_score(answers, references).score for it in BLEUS],
        "chrf": [chrf(it).corpus_score(answers, references).score for it in CHRFS],
        "bleu_interval": corpus_interval(bleu({"tokenizer": "zh"}), pairs, **small),
        "chrf_interval": corpus_interval(chrf({"word_order": 2}), pairs, **small),
    }


def pair(name, answer, references):
    return {
        "name": name,
        "answer": answer,
        "references": references,
        "tokens": {it: _get_tokenizer(it)()(answer.rstrip()).split() for it in TOKENIZERS},
        "bleu": [bleu(it).sentence_score(answer, references).score for it in BLEUS],
        "chrf": [chrf(it).sentence_score(answer, references).score for it in CHRFS],
        "rouge": [overlap(rouge(it), references, answer) for it in ROUGE_OPTIONS],
    }


def stems():
    """Words that meet every rule, and words that are none."""
    bases = "a ab abl ag ail allow arm cat cess child commun conflat control cr d depend differ die dog e easy el enjoy f fall feud file fizz fl form g general geo happ hiss hop ity ivy li log m mot nation oat occ ow p pl play pon r rat rel roll sh siz sk sp spy st tan th toy tr tree troubl val vietnam vis y zy 3d 1990".split()
    endings = "s es ies ss sses ied ed eed ing ting ling bling izing y ly al ally ational tional enci anci izer bli abli alli entli eli ousli ization ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness ance ence er ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e le ll".split()
    words = {base + ending for base in bases for ending in [""] + endings}
    words |= {word for _, answer, references in PAIRS for text in [answer, *references] for word in re.findall("[a-z0-9]+", text.lower())}
    words |= set("sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed syzygy yyyy sayyid".split())
    stemmer = PorterStemmer()
    # What rouge-score stems.
    return " ".join(f"{it} {stemmer.stem(it)}" for it in sorted(words) if len(it) > 3)


def diversity():
    named = {it[0]: it[1] for it in PAIRS}
    groups = [
        {"tokenizer": "13a", "effective_order": True, "texts": [named[it] for it in ("plain", "lines", "too long", "too short", "two words", "one word", "answer empty")]},
        {"tokenizer": "zh", "effective_order": True, "texts": [it[1] for it in PAIRS if "Chinese" in it[0]]},
        {"tokenizer": "char", "effective_order": False, "texts": [named[it] for it in ("Japanese", "Thai", "Katakana, half width", "only emoji", "only emoji")]},
    ]
    for group in groups:
        texts, metric = group["texts"], bleu(group)
        words = [_get_tokenizer(group["tokenizer"])()(it.rstrip()).split() for it in texts]
        ngrams = {n: [tuple(it[at : at + n]) for it in words for at in range(len(it) - n + 1)] for n in (1, 2, 3)}
        group["distinct"] = [len(set(ngrams[n])) / len(ngrams[n]) for n in (1, 2, 3)]
        others = lambda at: texts[:at] + texts[at + 1 :]
        group["self_bleu"] = [metric.sentence_score(it, others(at)).score for at, it in enumerate(texts)]
    return groups


def calibration():
    random = np.random.default_rng(0)
    confidences = [float(it) for it in np.concatenate([random.uniform(size=40), [0.0, 0.1, 0.5, 0.9, 1.0]])]
    right = [bool(it) for it in random.uniform(size=45) < np.array(confidences) ** 1.5]
    return {"confidences": confidences, "right": right, "bins": [dict(bins=it, **calibrated(confidences, right, it)) for it in (5, 10, 15)]}


def calibrated(confidences, right, bins):
    confidences, right = np.array(confidences), np.array(right, float)
    # Guo et al.: the bin of a confidence is open below, closed above.
    which = np.clip(np.digitize(confidences, np.linspace(0, 1, bins + 1), right=True), 1, bins)
    gaps = [(np.sum(which == it), abs(confidences[which == it].mean() - right[which == it].mean())) for it in set(which)]
    return {
        "expected_error": float(sum(count * gap for count, gap in gaps) / len(right)),
        "maximum_error": float(max(gap for _, gap in gaps)),
        "brier": float(np.mean((confidences - right) ** 2)),
    }


def mixed(text):
    """Words of a multilingual answer as MLQA's evaluation has them: no punctuation of any script, no English article,
    Chinese, Japanese and Korean characters one word each."""
    text = "".join(it for it in text.lower() if not unicodedata.category(it).startswith("P") and not it in "$+<=>^`|~")
    cjk = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003134f])")
    return [it for it in cjk.sub(r" \1 ", text).split() if it not in ("a", "an", "the")]


def bag_f1(answer, reference):
    answer, reference = mixed(answer), mixed(reference)
    shared = sum((Counter(answer) & Counter(reference)).values())
    if not answer or not reference:
        return float(answer == reference)
    return 2 * shared / (len(answer) + len(reference))


def answers():
    pairs = [
        (it, reference[0])
        for name, it, reference in PAIRS
        if name in ("plain", "identical", "both empty", "simplified Chinese", "Chinese with Latin letters", "Japanese", "Korean", "German", "Arabic")
    ]
    return [{"answer": a, "reference": r, "exact": float(mixed(a) == mixed(r)), "f1": bag_f1(a, r)} for a, r in pairs]


def corpora():
    chinese = [it for it in PAIRS if "Chinese" in it[0]]
    english = PAIRS[:33]
    return [corpus("English", english), corpus("Chinese", chinese), corpus("all", PAIRS), corpus("one", PAIRS[:1])]


# Cases of packages.


def samples(pairs, column=None):
    one = lambda it: {"completion": it[1], "reference": it[2][0]}
    many = lambda it: {"completion": it[1], "columns": {column: it[2] if len(it[2]) > 1 else it[2][0]}}
    return [many(it) if column else one(it) for it in pairs]


def chosen(*words):
    return [it for it in PAIRS if any(word in it[0] for word in words)]


def figure(value, confidence):
    return {"value": value, "confidence": confidence} if confidence else {"value": value}


def bleu_cases():
    def case(name, pairs, config, options):
        metric, sentence = bleu(options), bleu({**options, "effective_order": True})
        answers, column = [it[1] for it in pairs], config.get("column")
        pairs = pairs if column else [(a, b, c[:1]) for a, b, c in pairs]
        score = metric.corpus_score(answers, streams(pairs))
        each = [sentence.sentence_score(it[1], it[2]).score for it in pairs]
        return {
            "name": name,
            "config": {**options, **config},
            "samples": samples(pairs, column),
            "expected_metrics": {
                "bleu": figure(score.score, corpus_interval(metric, pairs)),
                "bleu_sentence": figure(sum(each) / len(each), mean_interval(each)),
                "bleu_brevity_penalty": score.bp,
            },
            "expected_details": [{"bleu": it} for it in each],
        }

    return [
        case("sacrebleu's defaults", chosen("plain", "numbers", "entities", "too long", "identical"), {}, {}),
        case("several references in a column", chosen("references", "equally far"), {"column": "answers"}, {}),
        case("Chinese by characters", chosen("Chinese"), {}, {"tokenizer": "zh"}),
        case("scripts without spaces", chosen("Japanese", "Thai", "Katakana"), {}, {"tokenizer": "char"}),
        case("other scripts", chosen("Arabic", "Hindi", "Russian", "Korean"), {}, {"tokenizer": "intl", "lowercase": True}),
        case("add-k and pairs only", chosen("plain", "two words", "German"), {}, {"smoothing": {"add-k": 1.0}, "max_order": 2}),
        {"name": "smoothing by nothing is refused", "config": {"smoothing": {"floor": 0.0}}, "expected_problem": "smoothing"},
        {"name": "an unknown tokeniser is refused", "config": {"tokenizer": "ja-mecab"}, "expected_problem": "tokenizer"},
    ]


def chrf_cases():
    def case(name, pairs, options, figure_name):
        metric = chrf(options)
        pairs = [(a, b, c[:1]) for a, b, c in pairs]
        score = metric.corpus_score([it[1] for it in pairs], streams(pairs)).score
        each = [metric.sentence_score(it[1], it[2]).score for it in pairs]
        return {
            "name": name,
            "config": options,
            "samples": samples(pairs),
            "expected_metrics": {figure_name: figure(score, corpus_interval(metric, pairs))},
            "expected_details": [{figure_name: it} for it in each],
        }

    return [
        case("sacrebleu's chrF2", chosen("plain", "German", "French", "identical", "no overlap"), {}, "chrf"),
        case("chrF2++", chosen("plain", "apostrophes", "brackets", "Russian"), {"word_order": 2}, "chrf++"),
        case("Chinese, Japanese, Korean", chosen("Chinese", "Japanese", "Korean"), {}, "chrf"),
        {"name": "no characters is refused", "config": {"char_order": 0}, "expected_problem": "char_order"},
    ]


def rouge_cases():
    def case(name, pairs, options, types=("rouge1", "rouge2", "rougeL", "rougeLsum")):
        scorer = rouge(options, list(types))
        scores = [overlap(scorer, it[2][:1], it[1]) for it in pairs]
        each = {kind: [it[kind][2] for it in scores] for kind in types}
        return {
            "name": name,
            "config": options,
            "samples": samples(pairs),
            "expected_metrics": {kind: figure(sum(it) / len(it), mean_interval(it)) for kind, it in each.items()},
            "expected_details": [{kind: it[kind][2] for kind in types} for it in scores],
        }

    chinese = chosen("Chinese")
    return [
        case("rouge-score's defaults", chosen("plain", "lines", "numbers", "no overlap"), {}),
        case("Porter's stemmer", chosen("stemming", "plain"), {"stemmer": True}),
        case("rouge-score finds no word in Chinese", chinese, {}),
        case("Chinese by characters", chinese, {"tokenizer": "zh"}),
        case("scripts without spaces", chosen("Japanese", "Thai", "Katakana"), {"tokenizer": "char"}),
        {"name": "a stemmer for other words is refused", "config": {"tokenizer": "zh", "stemmer": True}, "expected_problem": "stemmer"},
    ]


def overlap_cases():
    texts = ["The cat is sitting on the mat.", "The cat sat on the mat.", "A dog.", ""]
    chinese = ["今天天气不错，我们一起去公园散步吧！", "今天天气很好，我们去公园散步吧。", "再见。"]

    def case(name, config, references, answers, score):
        column = references if len(references) > 1 else references[0]
        return {"name": name, "config": config, "completions": answers, "columns": {"answer": column}, "expected": [score(it) for it in answers]}

    english, both = texts[:1], ["The cat is sitting on the mat.", "A cat sat on a mat."]
    sentence = bleu({"effective_order": True})
    by_characters = bleu({"effective_order": True, "tokenizer": "zh"})
    lsum, plusplus = rouge({}, ["rougeL"]), chrf({"word_order": 2})
    zh = rouge({"tokenizer": "zh"}, ["rouge2"])
    return [
        case("BLEU by default", {}, english, texts, lambda it: sentence.sentence_score(it, english).score / 100),
        case("the better of two references", {}, both, texts, lambda it: sentence.sentence_score(it, both).score / 100),
        case("Chinese BLEU", {"metric": {"bleu": {"tokenizer": "zh"}}}, chinese[:1], chinese, lambda it: by_characters.sentence_score(it, chinese[:1]).score / 100),
        case("ROUGE-L", {"metric": {"rouge": {}}}, english, texts, lambda it: overlap(lsum, english, it)["rougeL"][2]),
        case("Chinese ROUGE-2", {"metric": {"rouge": {"type": "rouge2", "tokenizer": "zh"}}}, chinese[:1], chinese, lambda it: overlap(zh, chinese[:1], it)["rouge2"][2]),
        case("chrF++", {"metric": {"chrf": {"word_order": 2}}}, english, texts, lambda it: plusplus.sentence_score(it, english).score / 100),
        {"name": "a row without a reference", "completions": ["a"], "columns": {}, "expected": [{"abstain": "`answer`"}]},
        {"name": "an impossible option is refused", "config": {"metric": {"bleu": {"max_order": 0}}}, "expected_problem": "metric.bleu.max_order"},
    ]


def write_cases(package, name, cases):
    folder = ROOT / "plugins" / package / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(it, ensure_ascii=False) for it in cases]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def main():
    assert len({it[0] for it in PAIRS}) == len(PAIRS) >= 60
    golden = {
        "bleu_options": BLEUS,
        "chrf_options": CHRFS,
        "rouge_options": ROUGE_OPTIONS,
        "pairs": [pair(*it) for it in PAIRS],
        "corpora": corpora(),
        "stems": stems(),
        "diversity": diversity(),
        "calibration": calibration(),
        "answers": answers(),
    }
    compact = lambda it: json.dumps(it, ensure_ascii=False, separators=(",", ":"))
    # One line a pair: a difference shows where it is.
    listed = lambda it: "[\n" + ",\n".join(compact(one) for one in it) + "\n]"
    parts = [f"{compact(key)}:{listed(it) if isinstance(it, list) else compact(it)}" for key, it in golden.items()]
    (ROOT / "tests/golden/text_metrics.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
    write_cases("bleu", "sacrebleu", bleu_cases())
    write_cases("chrf", "sacrebleu", chrf_cases())
    write_cases("rouge", "rouge_score", rouge_cases())
    write_cases("overlap-reward", "overlap", overlap_cases())


if __name__ == "__main__":
    main()
