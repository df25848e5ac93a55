"""llama.cpp as a peer of `against_transformers.py`: a GGUF in f32 of a Llama model, and greedy decoding of random prompts.

    python host/engine/benches/llama_cpp_peer.py MODEL_FOLDER FILE

writes the GGUF: in a process of its own, because what a process held when it starts another counts as the other's peak.

Needs llama-cpp-python, gguf, transformers and torch. Called through its C interface, a batch of all sequences a step, since
the Python class decodes one sequence at a time; the most likely token is found by numpy. Keys and values are f32 as ours.
"""
import json
import pathlib
import sys

import numpy

PACKAGES = ["llama_cpp", "gguf"]


def rotary(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Queries or keys as llama.cpp rotates them: the two halves of a head interleaved."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(folder: str, path: pathlib.Path) -> None:
    """Writes the model in `folder`, in f32, with a vocabulary that serves token ids only."""
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)
    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = rotary(values, heads if "q_proj" in name else kv_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Decoder:
    """A model with room for `sequences` of `length` tokens each."""

    def __init__(self, path: pathlib.Path, sequences: int, length: int, threads: int):
        import llama_cpp

        self.api, self.sequences = llama_cpp, sequences
        # Kept: the library calls it as long as it lives.
        self.log, self.said = llama_cpp.llama_log_callback(lambda _, text, __: self.said.append(text.decode())), []
        llama_cpp.llama_log_set(self.log, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError("llama.cpp does not load the model:\n" + "".join(self.said[-5:]))
        given = llama_cpp.llama_context_default_params()
        given.n_ctx, given.n_batch, given.n_seq_max = sequences * length, sequences * length, sequences
        given.n_threads = given.n_threads_batch = threads
        given.type_k = given.type_v = llama_cpp.GGML_TYPE_F32
        given.kv_unified = True
        self.context = llama_cpp.llama_init_from_model(self.model, given)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(sequences * length, 0, 1)

    def logits(self, tokens: list[list[int]], position: int) -> numpy.ndarray:
        """Reads the next tokens of every sequence: the logits after the last of each, `[sequences, V]`."""
        batch, places = self.batch, []
        batch.n_tokens = sum(len(it) for it in tokens)
        at = 0
        for sequence, ids in enumerate(tokens):
            for offset, token in enumerate(ids):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position + offset, 1
                batch.seq_id[at][0], batch.logits[at] = sequence, offset + 1 == len(ids)
                at += 1
            places.append(at - 1)
        if self.api.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        rows = [numpy.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, it), (self.vocabulary,)) for it in places]
        return numpy.stack(rows)

    def generate(self, prompts: list[list[int]], new_tokens: int) -> numpy.ndarray:
        """The most likely tokens after each prompt, all of one length, `[sequences, new_tokens]`."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        found = [self.logits(prompts, 0).argmax(1)]
        for position in range(len(prompts[0]), len(prompts[0]) + new_tokens - 1):
            found.append(self.logits([[int(it)] for it in found[-1]], position).argmax(1))
        return numpy.stack(found, 1)


def peer(path: pathlib.Path, batch: int, prompt: int, new_tokens: int, threads: int, repeat: int) -> None:
    """One measurement, printed as JSON; runs in a process of its own."""
    import statistics
    import time

    decoder = Decoder(path, batch, prompt + new_tokens, threads)
    prompts = numpy.random.default_rng(0).integers(0, decoder.vocabulary, (batch, prompt)).tolist()
    seconds = []
    for _ in range(repeat + 1):
        begin = time.perf_counter()
        decoder.generate(prompts, new_tokens)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"tokens_per_second": batch * new_tokens / statistics.median(seconds[1:]), "seconds": seconds}))


if __name__ == "__main__":
    write_gguf(sys.argv[1], pathlib.Path(sys.argv[2]))
