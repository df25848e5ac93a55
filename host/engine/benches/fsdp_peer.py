"""PyTorch's FSDP2 over gloo, as `against_fsdp.py` starts it by `torchrun`: optimizer steps, one line of JSON on the first rank."""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.distributed as dist
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--length", type=int, default=256)
    arguments.add_argument("--steps", type=int, default=5)
    arguments.add_argument("--rank", type=int, help="LoRA of this rank; every weight is trained if absent")
    arguments.add_argument("--keep", action="store_true", help="reshard_after_forward=False")
    arguments.add_argument("--checkpoint", action="store_true", help="compute blocks again in backward")
    arguments = arguments.parse_args()
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="sdpa")
    if arguments.rank:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=arguments.rank, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    mesh = init_device_mesh("cpu", (size,))
    layers = (model.base_model.model if arguments.rank else model).model.layers
    for index, layer in enumerate(layers):
        if arguments.checkpoint:
            layer = layers[index] = checkpoint_wrapper(layer)
        fully_shard(layer, mesh=mesh, reshard_after_forward=not arguments.keep)
    fully_shard(model, mesh=mesh, reshard_after_forward=not arguments.keep)
    trained = [it for it in model.parameters() if it.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, foreach=True)
    seconds, losses = [], []
    for _ in range(arguments.steps + 1):
        ids = torch.randint(0, model.config.vocab_size, (arguments.batch, arguments.length))
        dist.barrier()
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        dist.barrier()
        seconds.append(time.perf_counter() - begin)
        losses.append(loss.item())
    peaks = [None] * size
    dist.all_gather_object(peaks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    if rank == 0:
        median = statistics.median(seconds[1:])
        print(json.dumps({
            "ranks": size, "median_step_seconds": median, "step_seconds": seconds, "losses": losses,
            "tokens_per_second": size * arguments.batch * arguments.length / median, "peak_rss_gib_of_ranks": peaks,
        }), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
