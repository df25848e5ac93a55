"""llama.cpp's tokens, for check_gguf.py: JSON on standard input, JSON on standard output. Needs xllamacpp alone.

{"file": ..., "prompts": [text or ids], "count": ...} -> [{"ids": of a text, "tokens": the next ones, the likeliest each time,
    "first": log-probabilities of the first one, by id}]
Keys and values are f32, attention is not fused: nothing is rounded but what the file rounds.
"""
import json
import os
import sys
import urllib.request

import xllamacpp

asked = json.load(sys.stdin)
answer = os.dup(1)
os.dup2(2, 1)
params = xllamacpp.CommonParams()
params.model.path = asked["file"]
params.n_ctx, params.n_parallel, params.warmup = 256, 1, False
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)


def ask(path, body):
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=600).read())


found = []
for prompt in asked["prompts"]:
    ids = prompt
    if isinstance(prompt, str):
        ids = ask("/tokenize", {"content": prompt, "add_special": False, "parse_special": True})["tokens"]
    told = ask("/completion", {"prompt": ids, "n_predict": asked["count"], "temperature": 0, "top_k": 1, "n_probs": 64,
                               "ignore_eos": True, "return_tokens": True, "cache_prompt": False})
    first = {it["id"]: it["logprob"] for it in told["completion_probabilities"][0]["top_logprobs"]}
    found.append({"ids": ids, "tokens": told["tokens"], "first": first})
os.write(answer, json.dumps(found).encode())
