"""Tokenizers of every kind that a GGUF names, and what they make of texts in many scripts.

Written with gguf 0.19, tokenizers 0.23, transformers 5.24, sentencepiece 0.2:
    python tests/golden/generate/gguf_tokenizers.py
Writes tests/golden/gguf/tokenizers/<case>.gguf, metadata alone as llama.cpp's converter writes it, and ids.json: texts, and
the ids that the source tokenizer makes of them. Sources are trained here on the texts below: byte-level BPE with the
normaliser and the cut that transformers' own classes have (GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer,
Qwen3_5Tokenizer, and the expressions of `gguf_tokenizer_mapping.py`, where no class has them), and SentencePiece's BPE,
made fast by transformers' `LlamaConverter` and `GemmaConverter`.
"""
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import gguf
import sentencepiece
from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import GemmaConverter, LlamaConverter
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.tokenization_utils_base import generate_merges
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

ROOT = Path(__file__).resolve().parents[1] / "gguf/tokenizers"
# Scripts of the world, numbers, white space, forms of one letter, code, and what no training text holds.
TEXTS = [
    "The quick brown fox can't believe it's 1234567 o'clock; WE'LL SEE, she'd said. They've gone!",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку 42 раза.",
    "敏捷的棕色狐狸跳过懒狗。价格是１２３元，日期２０２４年１月。",
    "素早い茶色の狐がのろまな犬を飛び越える。カタカナとひらがな、ｶﾅ。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다 99번.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول ١٢٣٤ مرة.",
    "השועל החום המהיר קופץ מעל הכלב העצלן 7 פעמים.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते पर कूदती है १२३ बार। क्षत्रिय",
    "দ্রুত বাদামী শেয়াল অলস কুকুরের উপর লাফ দেয় ৪৫।",
    "சுறுசுறுப்பான பழுப்பு நரி சோம்பேறி நாயின் மேல் தாவுகிறது.",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ๑๒๓",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. ΑΒΓ αβγ",
    "სწრაფი ყავისფერი მელა ახტება ზარმაც ძაღლს. Արագ շագանակագույն աղվեսը",
    "ፈጣን ቡናማ ቀበሮ በሰነፍ ውሻ ላይ ዘለለ። ᚠᚢᚦ 𐍈 𒀀",
    "café cafe\u0301 Å A\u030a ﬁ ﬀ ½ ² Ⅷ ñ n\u0303 \u1e9b\u0323 각 \u1100\u1161\u11a8",
    "emoji 🙂 👩‍👩‍👧 🏳️‍🌈 🇩🇪 👍🏽 \u200b\u200d\ufe0f\ufeff",
    "  two  spaces\tand\ttabs\r\n\r\n   lines \n\n\n end   ",
    "\n", " ", "", "   ", "a", " a", "  a",
    "camelCase HTTPServer2024 snake_case kebab-case fooBar'sBaz x=y+1; if(a<=b){return \"ok\";} // done\n\t#!/bin/sh /usr//bin",
    "before<|endoftext|>after <|endoftext|> twice<tool>call</tool>  <tool>",
    "<s>text</s><unk><0x41> ▁ ▁▁ already",
    "3.14159 1,000,000 0x1F 10^-3 00:00 192.168.0.1 -5% $9.99 №5 §7 €1",
    "don't DON'T I'M i'm we’ve l'été aujourd'hui 'quoted' ''double''",
    "\x00\x01\x7f \x85 \xa0nbsp\u2003em\u2028ls\u3000ideographic",
]
LATIN = ["the quick brown fox jumps over the lazy dog", "she said that they have gone away", "it is not what it was",
         "return the value of x", "ab abc abcd abcde 12 123 1234", "HTTPServer camelCase", "isn't can't we'll I'm"] * 4
CORPUS = [it for it in TEXTS if "\x00" not in it and "<" not in it] * 3 + LATIN


def byte_level_sources():
    """The class or the cut of each name."""
    def of(split):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        return made

    digits = Tokenizer(models.BPE())
    digits.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                    pre_tokenizers.ByteLevel(add_prefix_space=False)])
    empty = dict(vocab={"a": 0}, merges=[])
    return {
        "gpt-2": GPT2Tokenizer(**empty).backend_tokenizer,
        "olmo": GPTNeoXTokenizer(**empty).backend_tokenizer,
        "smollm": digits,
        "llama-bpe": of(GGUF_PRE_TOKENIZER_SPLITS["llama-bpe"]),
        "dbrx": of(GGUF_PRE_TOKENIZER_SPLITS["dbrx"]),
        "qwen2": Qwen2Tokenizer(**empty).backend_tokenizer,
        "qwen35": Qwen3_5Tokenizer(**empty).backend_tokenizer,
        "gpt-4o": of(GGUF_PRE_TOKENIZER_SPLITS["gpt-4o"]),
        "tekken": of(GGUF_PRE_TOKENIZER_SPLITS["tekken"]),
    }


def writer_for(case, architecture="llama"):
    writer = gguf.GGUFWriter(ROOT / f"{case}.gguf", architecture)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def byte_level(pre, shape):
    """A source and its GGUF: `_set_vocab_gpt2`."""
    source = Tokenizer(models.BPE())
    source.normalizer, source.pre_tokenizer = shape.normalizer, shape.pre_tokenizer
    source.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=560, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    model = json.loads(source.to_str())["model"]
    ignores = pre in ("llama-bpe", "tekken")
    # Tokens that no merge makes: only whole pieces are one.
    merges = [tuple(it) for it in model["merges"][:-8 if ignores else None]]
    normalizer, cut = source.normalizer, source.pre_tokenizer
    source = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, ignore_merges=ignores))
    source.normalizer, source.pre_tokenizer = normalizer, cut
    source.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    source.add_tokens([AddedToken(it, normalized=False, special=False) for it in ["<tool>", "</tool>"]])
    end = source.token_to_id("<|endoftext|>")
    if ignores:
        source.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)])
    writer = writer_for(pre)
    tokens = sorted(source.get_vocab(), key=source.token_to_id)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    kinds = {"<|endoftext|>": TokenType.CONTROL, "<tool>": TokenType.USER_DEFINED, "</tool>": TokenType.USER_DEFINED}
    writer.add_token_types([kinds.get(it, TokenType.NORMAL) for it in tokens])
    writer.add_token_merges([" ".join(it) for it in merges])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    if not ignores:
        writer.add_add_bos_token(False)
    finish(writer)
    return source


def train(folder, **more):
    (folder / "corpus.txt").write_text("\n".join(CORPUS).replace("\x85", " "))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "spm"), model_type="bpe", byte_fallback=True,
        split_digits=True, allow_whitespace_only_pieces=True, normalization_rule_name="identity", minloglevel=2,
        remove_extra_whitespaces=False, character_coverage=0.98, vocab_size=900, **more)
    return folder / "spm.model"


class Extractor:
    """Merges in the order of scores, which is what transformers 4 made published `tokenizer.json` with."""

    def __init__(self, file):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(file))

    def extract(self, scores):
        vocab = {self.processor.id_to_piece(index): index for index in range(self.processor.get_piece_size())}
        return vocab, generate_merges(vocab, dict(scores))


def pieces(case, architecture, converter, file, added, prefixed):
    """A source and its GGUF: `_create_vocab_sentencepiece`. `added`: token, special, whether it takes blanks behind it."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    of_id = lambda index: processor.id_to_piece(index)
    original = SimpleNamespace(vocab_file=str(file), legacy=True, add_prefix_space=prefixed, pad_token="<pad>",
                               eos_token="</s>" if prefixed else "<eos>", bos_token="<s>" if prefixed else "<bos>",
                               convert_ids_to_tokens=of_id)
    source = type("Converter", (converter,), {"SpmExtractor": Extractor})(original).converted()
    source.add_special_tokens([AddedToken(of_id(processor.unk_id()), normalized=False, special=True)])
    for token, special, strips in added:
        made = AddedToken(token, normalized=False, special=special, rstrip=strips)
        (source.add_special_tokens if special else source.add_tokens)([made])
    begin = of_id(processor.bos_id())
    source.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, processor.bos_id())])

    count = source.get_vocab_size()
    tokens, scores, kinds = [], [], []
    user_defined = {it.content for index, it in source.get_added_tokens_decoder().items() if not it.special}
    special = {it.content for it in source.get_added_tokens_decoder().values() if it.special}
    for index in range(count):
        token = source.id_to_token(index)
        if index >= processor.vocab_size() or token in user_defined or token in special - {of_id(processor.unk_id())}:
            scores.append(-1000.0)
            kinds.append(TokenType.USER_DEFINED if token in user_defined else TokenType.CONTROL)
            tokens.append(token.replace("▁", " ") if token in user_defined else token)
            continue
        tokens.append(token)
        scores.append(processor.get_score(index))
        kinds.append(TokenType.UNKNOWN if processor.is_unknown(index) else TokenType.BYTE if processor.is_byte(index)
                     else TokenType.NORMAL)
    writer = writer_for(case, architecture)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([it.encode() for it in tokens])
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    if not prefixed:
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(True)
    finish(writer)
    return source


def main():
    ROOT.mkdir(exist_ok=True, parents=True)
    sources = {pre: byte_level(pre, shape) for pre, shape in byte_level_sources().items()}
    with tempfile.TemporaryDirectory() as folder:
        file = train(Path(folder))
        tools = [("<tool>", False, False), ("</tool>", False, False)]
        sources["llama2"] = pieces("llama2", "llama", LlamaConverter, file, tools, True)
        phi = [("<|endoftext|>", True, False), ("<tool>", True, True), ("</tool>", True, True)]
        sources["phi3"] = pieces("phi3", "phi3", LlamaConverter, file, phi, True)
        file = train(Path(folder), add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
                     eos_piece="<eos>", bos_piece="<bos>",
                     user_defined_symbols=["\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<tool>", "</tool>"])
        sources["gemma"] = pieces("gemma", "gemma2", GemmaConverter, file, [], False)
    ids = {case: [it.encode(text, add_special_tokens=False).ids for text in TEXTS] for case, it in sources.items()}
    for case, found in ids.items():
        print(case, sources[case].get_vocab_size(), sum(map(len, found)))
    (ROOT / "ids.json").write_text(json.dumps({"texts": TEXTS, "ids": ids}, ensure_ascii=True) + "\n")


main()
