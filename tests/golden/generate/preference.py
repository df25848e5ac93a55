"""ORPO, CPO, SimPO, KTO and the reward model's loss with their gradients: TRL's own code in float64.

Written with torch 2.15 and TRL 1.16.0:
    python tests/golden/generate/preference.py
Writes tests/golden/objectives/preference.safetensors. Of ORPO, CPO and SimPO `in.{chosen,rejected}` are the token
log-probabilities, end to end; of KTO `in.kto.*` are those of a completion, of the reward model `in.reward.*` are rewards.
Of each case `<case>.loss`, `<case>.grad.*` and what the objective gives besides.
"""
import torch
import trl

from trl_source import accelerator, draw, logps, mask, method, padded, stand_in, write

CHOSEN, REJECTED = [4, 6, 1, 5, 3], [3, 8, 2, 5, 4]
DESIRABLE = [True, False, False, True, True, False, True]

# f32 is where TRL computes its odds; here it is what is to be checked, so float64.
odds_ratio_loss = method("trl.experimental.orpo.orpo_trainer", "ORPOTrainer", "odds_ratio_loss",
                         changes=[("policy_chosen_logps.float()", "policy_chosen_logps.double()"),
                                  ("policy_rejected_logps.float()", "policy_rejected_logps.double()")])
cpo_loss = method("trl.experimental.cpo.cpo_trainer", "CPOTrainer", "cpo_loss")
kto_loss = method("trl.trainer.kto_trainer", "KTOTrainer", "_compute_loss", until='self._metrics[mode]["kl"]',
                  returns="losses.nanmean(), kl, chosen_rewards, rejected_rewards")
reward_loss = method("trl.trainer.reward_trainer", "RewardTrainer", "compute_loss", until='if mode == "train"', returns="loss")


def averages(chosen, rejected):
    """`get_batch_logps(average_log_prob=True)`."""
    means = lambda it, lengths: padded(it, lengths).sum(-1) / mask(lengths).sum(-1)
    return means(chosen, CHOSEN), means(rejected, REJECTED)


def sums(chosen, rejected):
    return padded(chosen, CHOSEN).sum(-1), padded(rejected, REJECTED).sum(-1)


def orpo(chosen, rejected, config):
    self = stand_in(beta=config["beta"], accelerator=accelerator())
    losses, chosen_rewards, rejected_rewards, ratio, log_odds = odds_ratio_loss(self, *averages(chosen, rejected))
    # `get_batch_loss_metrics`; the cross entropy is taken over the completion alone, as in the paper.
    return -chosen.mean() - losses.mean(), dict(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards,
                                                log_odds_ratio=ratio, log_odds_chosen=log_odds)


def cpo(chosen, rejected, config, simpo=False):
    config = dict(loss_type="sigmoid", beta=0.1, label_smoothing=0.0, cpo_alpha=1.0, gamma=0.5) | config
    if simpo:
        config |= dict(loss_type="simpo", cpo_alpha=0.0)
    self = stand_in(beta=config["beta"], label_smoothing=config["label_smoothing"], loss_type=config["loss_type"], alpha=0.0,
                    simpo_gamma=config["gamma"], accelerator=accelerator())
    of_pairs = averages if config["loss_type"] in ("ipo", "simpo") else sums
    losses, chosen_rewards, rejected_rewards = cpo_loss(self, *of_pairs(chosen, rejected))
    return losses.mean() + config["cpo_alpha"] * -chosen.mean(), dict(chosen_rewards=chosen_rewards,
                                                                      rejected_rewards=rejected_rewards)


def pair_cases():
    for beta in (0.1, 1.0):
        yield f"orpo_beta_{beta}", orpo, dict(beta=beta)
    for loss_type in ("sigmoid", "hinge", "ipo"):
        yield f"cpo_{loss_type}", cpo, dict(loss_type=loss_type)
    yield "cpo_smoothed", cpo, dict(label_smoothing=0.2, beta=0.5)
    yield "cpo_alpha_0", cpo, dict(cpo_alpha=0.0)
    yield "cpo_alpha_0.3", cpo, dict(cpo_alpha=0.3)
    yield "cpo_hinge_beta_0.5", cpo, dict(loss_type="hinge", beta=0.5)
    simpo = lambda *it: cpo(*it, simpo=True)
    for beta, gamma in ((2.0, 1.0), (2.5, 0.3), (1.0, 0.0)):
        yield f"simpo_{beta}_{gamma}", simpo, dict(beta=beta, gamma=gamma)
    yield "simpo_smoothed", simpo, dict(beta=2.0, gamma=1.0, label_smoothing=0.1)


def kto(policy, inputs, config):
    config = dict(loss_type="kto", beta=0.1, desirable_weight=1.0, undesirable_weight=1.0) | config
    count = len(DESIRABLE)
    ones = torch.ones(count, 2, dtype=torch.long)
    batch = dict(label=torch.tensor(DESIRABLE), input_ids=ones, attention_mask=ones, completion_mask=ones,
                 ref_logps=inputs["kto.reference"], ref_KL_logps=inputs["kto.kl.reference"])
    self = stand_in(model=stand_in(training=True), accelerator=accelerator(), aux_loss_enabled=False, precompute_ref_logps=True,
                    calculate_KL=config["loss_type"] == "kto", loss_type=config["loss_type"], beta=config["beta"],
                    desirable_weight=config["desirable_weight"], undesirable_weight=config["undesirable_weight"],
                    _compute_kl_logps=lambda *_: inputs["kto.kl.policy"])
    model = lambda **_: stand_in(log_probs=policy[:, None])
    return kto_loss(self, model, batch, False)


def kto_cases():
    yield "kto", {}
    yield "kto_beta_0.5", dict(beta=0.5)
    yield "kto_weights", dict(desirable_weight=1.33, undesirable_weight=0.7)
    yield "kto_apo_zero_unpaired", dict(loss_type="apo_zero_unpaired", beta=0.3)


def main():
    generator = torch.Generator().manual_seed(11)
    inputs = {"chosen": logps(generator, sum(CHOSEN)), "rejected": logps(generator, sum(REJECTED))}
    count = len(DESIRABLE)
    for key in ("policy", "reference", "kl.policy", "kl.reference"):
        inputs[f"kto.{key}"] = -5 + 2 * draw(generator, count)
    # The estimate is to be above zero: below it is cut off.
    inputs["kto.kl.policy"] = inputs["kto.kl.reference"] + draw(generator, count).float().double() + 1.0
    inputs = {key: value.float().double() for key, value in inputs.items()}
    inputs["reward.chosen"], inputs["reward.rejected"] = draw(generator, 6), draw(generator, 6)
    inputs["reward.margin"] = draw(generator, 6).abs()
    tensors = {f"in.{key}": value for key, value in inputs.items()}
    told = {}
    for name, objective, config in pair_cases():
        chosen, rejected = (inputs[key].clone().requires_grad_() for key in ("chosen", "rejected"))
        loss, others = objective(chosen, rejected, config)
        loss.backward()
        tensors |= {f"{name}.loss": loss, f"{name}.grad.chosen": chosen.grad, f"{name}.grad.rejected": rejected.grad}
        tensors |= {f"{name}.{key}": value for key, value in others.items()}
        told[name] = config
    for name, config in kto_cases():
        policy = inputs["kto.policy"].clone().requires_grad_()
        loss, kl, chosen_rewards, rejected_rewards = kto(policy, inputs, config)
        loss.backward()
        tensors |= {f"{name}.loss": loss, f"{name}.grad.policy": policy.grad, f"{name}.kl": kl,
                    f"{name}.chosen_rewards": chosen_rewards, f"{name}.rejected_rewards": rejected_rewards}
        told[name] = config
    for name, coefficient, margin in (("reward", None, False), ("reward_margin", None, True), ("reward_centred", 0.01, False),
                                      ("reward_both", 0.5, True)):
        chosen, rejected = (inputs[f"reward.{key}"].clone().requires_grad_() for key in ("chosen", "rejected"))
        batch = {"margin": inputs["reward.margin"]} if margin else {}
        self = stand_in(model=stand_in(training=True), args=stand_in(center_rewards_coefficient=coefficient))
        loss = reward_loss(self, lambda **_: stand_in(logits=torch.cat([chosen, rejected])[:, None]), batch)
        loss.backward()
        tensors |= {f"{name}.loss": loss, f"{name}.grad.chosen": chosen.grad, f"{name}.grad.rejected": rejected.grad}
        told[name] = {"center_rewards_coefficient": coefficient}
    print("torch", torch.__version__, "TRL", trl.__version__)
    write("preference", tensors,
          {"lengths": {"chosen": CHOSEN, "rejected": REJECTED}, "desirable": DESIRABLE, "configurations": told})


if __name__ == "__main__":
    main()
