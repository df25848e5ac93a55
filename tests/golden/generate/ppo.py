"""PPO's rewards, advantages and losses: the lines of TRL 0.24's trainer in float64 (later versions have no PPO).

Written with torch 2.15 and the unpacked wheel of TRL 0.24.0 (`pip download --no-deps trl==0.24.0`):
    python tests/golden/generate/ppo.py --trl-0.24 FOLDER
Writes tests/golden/objectives/ppo.safetensors, everything end to end. Two sets of completions: `full`, all of one length, and
`ragged`, where TRL gives a completion that ended one state more than it has tokens, which takes the score (`states` and
`tokens` count both). Of each set the inputs `<set>.in.*`, and for each case of rewards `<set>.<case>.*`; then the losses of a
step, `<set>.loss.*`, with the gradients of the new log-probabilities, values and entropies.
"""
import typing

import torch

from trl_source import accelerator, arguments, draw, flat, lines, logps, padded, stand_in, unpacked, write

INVALID_LOGPROB = 1.0
# Of each completion: tokens; TRL's rows have `WIDTH` places.
WIDTH = 6
SETS = {"full": [6, 6, 6], "ragged": [6, 4, 2, 5]}
CASES = {
    "k1": dict(kl_estimator="k1", whiten_rewards=False, gamma=1.0, lam=0.95),
    "k3": dict(kl_estimator="k3", whiten_rewards=False, gamma=1.0, lam=0.95),
    "whitened": dict(kl_estimator="k1", whiten_rewards=True, gamma=1.0, lam=0.95),
    "discounted": dict(kl_estimator="k3", whiten_rewards=True, gamma=0.9, lam=0.8),
    "no_lambda": dict(kl_estimator="k1", whiten_rewards=False, gamma=0.97, lam=0.0),
}
KL_COEF, CLIPRANGE, CLIPRANGE_VALUE, VF_COEF, ENTROPY_COEF = 0.05, 0.2, 0.15, 0.1, 0.01


def rows(values, lengths, fill):
    values = padded(values, lengths, fill)
    return torch.nn.functional.pad(values, (0, WIDTH - values.shape[1]), value=fill)


def of_set(name, tokens, code, generator, tensors):
    rewards_code, loss_code, statistics_code, metrics_code, masked = code
    states = [min(it + 1, WIDTH) for it in tokens]
    count = len(tokens)
    old, reference = logps(generator, sum(tokens)), logps(generator, sum(tokens))
    values, scores = draw(generator, sum(states)), draw(generator, count)
    inputs = dict(logps=old, reference=reference, values=values, scores=scores)
    places = torch.arange(WIDTH)[None].repeat(count, 1)
    last = torch.tensor(tokens) - 1
    padding, padding_p1 = places > last[:, None], places > last[:, None] + 1
    for case, config in CASES.items():
        space = dict(
            masked, torch=torch, args=stand_in(kl_coef=KL_COEF, **config), ref_logprobs=rows(reference, tokens, INVALID_LOGPROB),
            logprobs=rows(old, tokens, INVALID_LOGPROB), scores=scores, sequence_lengths=last, sequence_lengths_p1=last + 1,
            padding_mask=padding, padding_mask_p1=padding_p1, values=rows(values, states, 0.0), responses=torch.zeros(count, WIDTH),
        )
        exec(rewards_code, space)
        tensors |= {f"{name}.{case}.kl": flat(space["kl"], tokens), f"{name}.{case}.rewards": flat(space["rewards"], states),
                    f"{name}.{case}.returns": flat(space["returns"], states),
                    f"{name}.{case}.advantages": flat(space["advantages"], tokens)}
        if case == "k1":
            kept = space
        if name == "full":
            # TRL's means take padding in, so they are the rollout's only where there is none.
            space["self"] = stand_in(accelerator=accelerator())
            exec(metrics_code, space)
            for key in ("mean_kl", "mean_entropy", "mean_non_score_reward", "rlhf_reward"):
                tensors[f"{name}.{case}.{key}"] = space[key]
    new, new_values = old + draw(generator, len(old), scale=0.25), values + draw(generator, len(values), scale=0.3)
    entropy = draw(generator, len(old)).abs()
    new, new_values = new.float().double(), new_values.float().double()
    inputs |= dict(new_logps=new, new_values=new_values, entropy=entropy)
    tensors |= {f"{name}.in.{key}": value for key, value in inputs.items()}
    leaves = {key: value.clone().requires_grad_() for key, value in (("logps", new), ("values", new_values), ("entropy", entropy))}
    # The advantages and returns as f32 holds them: they are inputs of the losses.
    advantages, returns = kept["advantages"].float().double(), kept["returns"].float().double()
    space = dict(
        masked, torch=torch, vpred=rows(leaves["values"], states, 0.0), mb_values=rows(values, states, 0.0), mb_return=returns,
        args=stand_in(cliprange_value=CLIPRANGE_VALUE, cliprange=CLIPRANGE, vf_coef=VF_COEF), padding_mask_p1=padding_p1,
        padding_mask=padding, micro_batch_inds=torch.arange(count), mb_advantage=advantages,
        new_logprobs=rows(leaves["logps"], tokens, INVALID_LOGPROB), mb_logprobs=rows(old, tokens, INVALID_LOGPROB),
    )
    exec(loss_code, space)
    entropy_mean = leaves["entropy"].mean()
    # TRL has no entropy bonus; the loss is written out: <https://arxiv.org/abs/1707.06347>, eq. 9.
    loss = space["loss"] - ENTROPY_COEF * entropy_mean
    loss.backward()
    exec(statistics_code, space)
    tensors |= {f"{name}.loss.{key}": space[key] for key in ("pg_loss", "vf_loss", "vf_clipfrac", "pg_clipfrac")}
    tensors |= {f"{name}.loss.loss": loss} | {f"{name}.loss.grad.{key}": leaf.grad for key, leaf in leaves.items()}
    if name == "full":
        tensors |= {f"{name}.loss.approxkl": space["approxkl"], f"{name}.loss.ratio": space["ratio"].mean()}
    return {"tokens": tokens, "states": states}


def main():
    folder = arguments(__doc__, ("--trl-0.24", "the unpacked wheel of TRL 0.24.0")).__dict__["trl_0.24"]
    trainer, core = folder / "trl/trainer/ppo_trainer.py", folder / "trl/core.py"
    masked = {"torch": torch, "Optional": typing.Optional, "Union": typing.Union}
    for name in ("masked_mean", "masked_var", "masked_whiten"):
        masked[name] = unpacked(core, None, name, masked)
    masked["INVALID_LOGPROB"] = INVALID_LOGPROB
    code = (
        # A list as an index, which torch warns of, is the tuple.
        lines(trainer, "logr = ref_logprobs - logprobs", "empty_cache()",
              changes=[("rewards[[actual_start, actual_end]]", "rewards[actual_start, actual_end]")]),
        lines(trainer, "vpredclipped = torch.clamp(", "accelerator.backward(loss)", changes=[(".float()", ".double()")]),
        lines(trainer, "pg_clipfrac = masked_mean(", "prob_dist =", changes=[(".float()", ".double()")])
        + "\n" + lines(trainer, "approxkl = 0.5 *", "approxkl_stats["),
        lines(trainer, "mean_kl = kl.sum(1).mean()", "eps = int("),
        masked,
    )
    generator = torch.Generator().manual_seed(17)
    tensors, told = {}, {}
    for name, tokens in SETS.items():
        told[name] = of_set(name, tokens, code, generator, tensors)
    print("torch", torch.__version__)
    constants = dict(kl_coef=KL_COEF, cliprange=CLIPRANGE, cliprange_value=CLIPRANGE_VALUE, vf_coef=VF_COEF,
                     entropy_coef=ENTROPY_COEF)
    write("ppo", tensors, {"sets": told, "configurations": {key: value | constants for key, value in CASES.items()}})


if __name__ == "__main__":
    main()
