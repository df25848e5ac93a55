"""Chat templates rendered and tokenised by transformers.

Written with transformers 5.23, tokenizers 0.23:
    python tests/golden/generate/chat_template.py
Writes tests/golden/chat_template/tokenizer.json (byte-level BPE trained on this file's own sentences, digits split
one by one, the templates' special tokens added) and cases.json: for each template and conversation the rendered
text with and without a generation prompt, the ids, and for templates with generation tags the assistant's mask.
"""
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[1] / "chat_template"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|user|>", "<|assistant|>", "<|system|>", "<s>", "</s>"]
TEMPLATES = {
    "chatml_default_system": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama3_headers": """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "zephyr_lines": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "methods_and_namespace": """{%- set ns = namespace(turns=0) -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}{{ '[SYS]' ~ message.content.strip().upper() ~ '[/SYS]' }}{%- continue -%}{%- endif -%}
    {%- set ns.turns = ns.turns + 1 -%}
    {{ ns.turns | string + ') ' + message.role.capitalize() + ': ' + message.content.strip() + ('\\n' if not loop.last else eos_token) }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '\\nAssistant:' }}{%- endif -%}""",
    "generation_tags": """{% for message in messages %}
{% if message['role'] == 'assistant' %}
<|im_start|>assistant
{% generation %}
{{ message['content'] }}<|im_end|>
{% endgeneration %}
{% else %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}
""",
}
turn = lambda role, content: {"role": role, "content": content}
CONVERSATIONS = {
    "one_turn": [turn("user", "What is 12345 + 1?"), turn("assistant", "It is 12346.")],
    "system": [turn("system", "Answer in one word."), turn("user", "Capital of France?"), turn("assistant", "Paris")],
    "multi_turn": [turn("user", " Hello! "), turn("assistant", "Grüß Gott, 你好 🙂"), turn("user", "Again?\n\nPlease."),
                   turn("assistant", "{\"name\": \"Łukasz\", \"age\": 30}")],
}


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    made.decoder = decoders.ByteLevel()
    text = [message["content"] for turns in CONVERSATIONS.values() for message in turns] + [__doc__]
    made.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return made


def main():
    ROOT.mkdir(exist_ok=True)
    made = tokenizer()
    made.save(str(ROOT / "tokenizer.json"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|begin_of_text|>", eos_token="</s>")
    cases = []
    for name, template in TEMPLATES.items():
        for conversation, turns in CONVERSATIONS.items():
            render = lambda **more: wrapped.apply_chat_template(turns, chat_template=template, **more)
            case = {"template": name, "conversation": conversation, "source": template, "messages": turns,
                    "text": render(tokenize=False),
                    "prompt_text": wrapped.apply_chat_template(turns[:-1], chat_template=template, tokenize=False,
                                                               add_generation_prompt=True)}
            marked = "{% generation %}" in template
            encoded = render(tokenize=True, return_dict=True, return_assistant_tokens_mask=marked)
            case["input_ids"] = encoded["input_ids"]
            if marked:
                case["assistant_mask"] = encoded["assistant_masks"]
            cases.append(case)
    (ROOT / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
