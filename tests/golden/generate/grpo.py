"""The group-relative objective: advantages of groups and losses with their gradients, TRL's own code in float64.

Written with torch 2.15 and TRL 1.16.0:
    python tests/golden/generate/grpo.py
Writes tests/golden/objectives/grpo.safetensors. `in.*` are token log-probabilities end to end, advantages a completion, and
scores in groups, NaN where there is none. Of each loss `<case>.loss`, `<case>.grad` and statistics; of each way to
advantages `<case>.advantages`, `<case>.reward`, `<case>.reward_std`, `<case>.frac_reward_zero_std`.
A configuration has TRL's keys; `baseline` and `trajectory` are ours: `RLOOTrainer` is what they stand for.
"""
import pathlib

import torch
import trl
import trl.trainer.grpo_trainer
import trl.trainer.rloo_trainer
from trl.rewards import get_soft_overlong_punishment

from trl_source import accelerator, draw, flat, lines, logps, mask, method, padded, stand_in, write

LENGTHS = [4, 7, 2, 5, 1, 6]
MAX_COMPLETION_LENGTH, MICRO_BATCHES = 8, 2
NONE = float("nan")
GROUPS = [[1.0, 0.0, 0.5, 1.0], [0.25, NONE, -1.0, 2.0], [0.7, 0.7, 0.7, 0.7], [NONE, 3.0, NONE, NONE], [0.1, 0.1, NONE, 0.3],
          [NONE, NONE, NONE, NONE]]

grpo_loss = method("trl.trainer.grpo_trainer", "GRPOTrainer", "_compute_loss", until="def masked_seq_mean",
                   returns="loss, coef_1, (per_token_kl if self.beta != 0.0 else None)")
statistics = lines(pathlib.Path(trl.trainer.grpo_trainer.__file__), "is_low_clipped = (coef_1 < 1", 'self._metrics[mode]["clip_ratio/low_mean"]')
rloo_loss = method("trl.trainer.rloo_trainer", "RLOOTrainer", "_compute_loss", until="# Log the metrics", returns="loss, coef_1, None")
first = "unscorable_mask = torch.isnan(rewards_per_func)"
group_advantages = lines(pathlib.Path(trl.trainer.grpo_trainer.__file__), first, "# Slice to keep only the local part")
leave_one_out = lines(pathlib.Path(trl.trainer.rloo_trainer.__file__), first, "# Slice to keep only the local part")


def a_batch(inputs, new, config):
    config = dict(loss_type="dapo", beta=0.0, epsilon=0.2, epsilon_high=None, delta=None, importance_sampling_level="token",
                  use_bias_correction_kl=True) | config
    high = config["epsilon_high"]
    mask_ = mask(LENGTHS)
    count, width = mask_.shape
    rows = lambda it: padded(it, LENGTHS)
    trajectory = config["importance_sampling_level"] == "trajectory"
    args = stand_in(use_bias_correction_kl=config["use_bias_correction_kl"], delta=config["delta"], steps_per_generation=MICRO_BATCHES)
    self = stand_in(
        model=stand_in(training=True), aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level=config["importance_sampling_level"], beta=config["beta"], args=args, loss_type=config["loss_type"],
        epsilon_low=config["epsilon"], epsilon_high=config["epsilon"] if high is None else high, use_vllm=False,
        vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=MICRO_BATCHES,
        max_completion_length=MAX_COMPLETION_LENGTH, accelerator=accelerator(), _entropy_bonus_enabled=False,
        _get_per_token_logps_and_entropies=lambda *_, **__: (rows(new), torch.zeros(count, width), None),
    )
    batch = dict(prompt_ids=torch.zeros(count, 2, dtype=torch.long), prompt_mask=torch.ones(count, 2, dtype=torch.long),
                 completion_ids=torch.zeros(count, width, dtype=torch.long), completion_mask=mask_, advantages=inputs["advantages"],
                 ref_per_token_logps=rows(inputs["reference"]), num_items_in_batch=torch.tensor(float(inputs["step_tokens"])))
    if not config.get("on_policy"):
        batch["old_per_token_logps"] = rows(inputs["old"])
    if trajectory:
        batch["old_logps"] = rows(inputs["old"]).sum(-1)
        loss, coef_1, kl = rloo_loss(self, None, batch)
        # `Trainer` divides by the micro-batches.
        return loss / MICRO_BATCHES, coef_1[:, None], kl, self, mask_
    return *grpo_loss(self, None, batch), self, mask_


def loss_cases():
    for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo"):
        for level in ("token", "sequence"):
            for beta in (0.0, 0.04):
                yield f"{loss_type}_{level}_{beta}", dict(loss_type=loss_type, importance_sampling_level=level, beta=beta)
        yield f"{loss_type}_plain_kl", dict(loss_type=loss_type, beta=0.1, use_bias_correction_kl=False)
    yield "clip_higher", dict(loss_type="dapo", epsilon=0.2, epsilon_high=0.28)
    yield "gspo", dict(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4)
    yield "two_sided", dict(loss_type="grpo", delta=1.5)
    yield "on_policy", dict(loss_type="dapo", on_policy=True)
    yield "on_policy_kl", dict(loss_type="grpo", beta=0.04, on_policy=True)
    yield "rloo", dict(loss_type="grpo", importance_sampling_level="trajectory")
    yield "rloo_wide", dict(loss_type="grpo", importance_sampling_level="trajectory", epsilon=0.9)


def losses(inputs, tensors, told):
    for name, config in loss_cases():
        new = inputs["new"].clone().requires_grad_()
        loss, coef_1, kl, self, mask_ = a_batch(inputs, new, config)
        loss.backward()
        tensors |= {f"{name}.loss": loss, f"{name}.grad": new.grad}
        if kl is not None:
            tensors[f"{name}.kl"] = flat(kl, LENGTHS)
        space = dict(coef_1=coef_1.detach(), advantages=inputs["advantages"][:, None], self=self)
        exec(statistics, space)
        # As TRL's `masked_seq_mean` and `global_masked_mean`, with one process.
        alone = coef_1.shape[1] == 1
        of_sequence = lambda it: it[:, 0].double() if alone else (it * mask_).sum(-1) / mask_.sum(-1)
        mean = lambda it: it.double().mean() if alone else (it * mask_).sum() / mask_.sum()
        low, high, region = (space[f"is_{key}_clipped"] for key in ("low", "high", "region"))
        tensors[f"{name}.clip_ratio"] = torch.stack([mean(low), mean(high), mean(region), of_sequence(low).min(), of_sequence(high).max()])
        told[name] = config


def advantages(tensors, told):
    scores = torch.tensor(GROUPS, dtype=torch.float64).reshape(-1, 1)
    width = len(GROUPS[0])
    common = dict(rewards_per_func=scores, device="cpu", torch=torch)
    weights = dict(reward_weights=torch.ones(1, dtype=torch.float64))

    def of_grpo(scale, num_generations=width):
        space = vars(trl.trainer.grpo_trainer) | common | dict(num_generations=num_generations)
        space["self"] = stand_in(scale_rewards=scale, multi_objective_aggregation="sum_then_normalize", **weights)
        exec(group_advantages, space)
        return space
    # Two tokens a completion, of which the second counts in every other one.
    generator = torch.Generator().manual_seed(29)
    of_tokens = [draw(generator, scores.numel(), 2).float().double() for _ in range(2)]
    completion_mask = torch.tensor([[1, it % 2] for it in range(scores.numel())])
    kl = dict(old_per_token_logps=of_tokens[0], ref_per_token_logps=of_tokens[1], completion_mask=completion_mask,
              gather=lambda it: it)
    tensors["in.kl"] = ((of_tokens[0] - of_tokens[1]) * completion_mask).sum(-1)

    def of_rloo(normalize, beta=0.0):
        space = vars(trl.trainer.rloo_trainer) | common | kl | dict(num_generations=width)
        space["self"] = stand_in(reward_clip_range=None, beta=beta, normalize_advantages=normalize, **weights)
        exec(leave_one_out, space)
        return space
    nanstd = trl.trainer.grpo_trainer.nanstd
    found = {f"scale_{it}": (of_grpo(it), dict(scale_rewards=it)) for it in ("group", "batch", "none")}
    for normalize in (False, True):
        config = dict(baseline="leave_one_out", scale_rewards="none", normalize_advantages=normalize)
        found[f"leave_one_out{'_normalized' if normalize else ''}"] = (of_rloo(normalize), config)
    found["leave_one_out_kl"] = (of_rloo(False, 0.05), dict(baseline="leave_one_out", scale_rewards="none", beta=0.05,
                                                            kl_in_reward=True))
    # REINFORCE++: the whole batch is one group to TRL's code.
    found["reinforce_plus_plus"] = (of_grpo("group", scores.numel()),
                                    dict(baseline="none", scale_rewards="none", normalize_advantages=True))
    # With the group's mean as its baseline: TRL's centred rewards, brought to unit variance over those that have one.
    space = of_grpo("none")
    centred = space["advantages"].clone()
    lone = (~torch.isnan(scores.view(-1, width))).sum(1).repeat_interleave(width) < 2
    centred[torch.isnan(scores[:, 0]) | lone] = NONE
    normal = (centred - centred.nanmean()) / (nanstd(centred) + 1e-4)
    space["advantages"] = normal.nan_to_num(0.0)
    found["reinforce_plus_plus_baseline"] = (space, dict(baseline="group_mean", scale_rewards="none", normalize_advantages=True))
    for name, (space, config) in found.items():
        # What is logged is without the divergence.
        reward = scores[:, 0]
        tensors |= {f"{name}.advantages": space["advantages"], f"{name}.reward": reward.nanmean(), f"{name}.reward_std": nanstd(reward)}
        told[name] = config
    zero = found["scale_group"][0]["is_std_zero"].double().mean()
    tensors["frac_reward_zero_std"] = zero
    tensors["in.scores"] = scores


def main():
    generator = torch.Generator().manual_seed(23)
    tokens = sum(LENGTHS)
    inputs = {"new": logps(generator, tokens)}
    # Some ratios past every clip, some inside.
    inputs["old"] = (inputs["new"] + draw(generator, tokens, scale=0.25)).float().double()
    inputs["reference"] = (inputs["new"] + draw(generator, tokens, scale=0.4)).float().double()
    inputs["advantages"] = draw(generator, len(LENGTHS))
    tensors = {f"in.{key}": value for key, value in inputs.items()}
    # The other micro-batches of the step have tokens too.
    inputs["step_tokens"] = tokens + 13
    of_losses, of_advantages = {}, {}
    losses(inputs, tensors, of_losses)
    advantages(tensors, of_advantages)
    punish = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    lengths = [1, 79, 80, 81, 90, 100, 101]
    tensors["overlong"] = torch.tensor(punish([[0] * it for it in lengths]))
    print("torch", torch.__version__, "TRL", trl.__version__)
    write("grpo", tensors, {
        "lengths": LENGTHS, "micro_batches": MICRO_BATCHES, "step_tokens": inputs["step_tokens"],
        "max_completion_length": MAX_COMPLETION_LENGTH, "group": len(GROUPS[0]), "overlong": lengths,
        "losses": of_losses, "advantages": of_advantages})


if __name__ == "__main__":
    main()
