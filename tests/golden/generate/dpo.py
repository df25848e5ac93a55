"""DPO's losses and their gradients: TRL's own code in float64, where TRL has them.

Written with torch 2.15, TRL 1.16.0 and the unpacked wheel of TRL 0.24.0 (`pip download --no-deps trl==0.24.0`):
    python tests/golden/generate/dpo.py --trl-0.24 FOLDER
Writes tests/golden/objectives/dpo.safetensors: `in.*` are the token log-probabilities, end to end; of each case
`<case>.loss`, `<case>.rewards.{chosen,rejected}` and the gradients `<case>.grad.{chosen,rejected}`. A case's
configuration has TRL's keys.

TRL 1.16 leaves label smoothing out of `sigmoid` and has no `rpo_alpha`; both come from 0.24's `dpo_loss`.
"""
from contextlib import nullcontext

import torch
import trl
from torch.nn import functional as F

from trl_source import accelerator, arguments, draw, logps, mask, method, padded, stand_in, unpacked, write

CHOSEN, REJECTED = [4, 6, 1, 5, 3], [3, 8, 2, 5, 4]
LOSS_TYPES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
              "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]

compute_loss = method(
    "trl.trainer.dpo_trainer", "DPOTrainer", "_compute_loss", until="# Log the metrics",
    returns="loss, self.beta * chosen_logratios.detach(), self.beta * rejected_logratios.detach()",
    changes=[("torch.float32: 80.0}", "torch.float32: 80.0, torch.float64: 80.0}"), ("t_chosen.float()", "t_chosen"),
             ("t_rejected.float()", "t_rejected"),
             ("torch.tensor(self.label_smoothing, device=device)", "torch.tensor(self.label_smoothing).double()")],
    stands_for=dict(is_peft_model=lambda _: False, disable_gradient_checkpointing=lambda *_: nullcontext()),
)


def trl_1_16(chosen, rejected, ref_chosen, ref_rejected, config):
    lengths = CHOSEN + REJECTED
    # TRL's mask stands over the tokens, of which the first is never predicted: a prompt of one token.
    completion_mask = F.pad(mask(lengths), (1, 0))
    rows = lambda a, b: padded(torch.cat([a, b]), lengths)
    model = lambda log_probs: lambda **_: stand_in(log_probs=log_probs)
    config = dict(beta=0.1, label_smoothing=0.0, f_divergence_type="reverse_kl", f_alpha_divergence_coef=0.5,
                  loss_type=["sigmoid"], loss_weights=None, ld_alpha=None, discopop_tau=0.05) | config
    self = stand_in(
        model=stand_in(training=True), ref_model=model(rows(ref_chosen, ref_rejected)), accelerator=accelerator(),
        aux_loss_enabled=False, precompute_ref_logps=False, use_weighting=False, beta=config["beta"],
        label_smoothing=config["label_smoothing"], ld_alpha=config["ld_alpha"], f_divergence_type=config["f_divergence_type"],
        f_alpha_divergence_coef=config["f_alpha_divergence_coef"], loss_types=config["loss_type"],
        loss_weights=config["loss_weights"] or [1.0] * len(config["loss_type"]),
        args=stand_in(discopop_tau=config["discopop_tau"], gradient_checkpointing_kwargs=None),
    )
    inputs = dict(input_ids=torch.zeros_like(completion_mask), attention_mask=torch.ones_like(completion_mask),
                  completion_mask=completion_mask)
    return compute_loss(self, model(rows(chosen, rejected)), inputs, False)


def trl_0_24(dpo_loss, f_divergence, chosen, rejected, ref_chosen, ref_rejected, config):
    sums = lambda it, lengths: padded(it, lengths).sum(-1)
    self = stand_in(accelerator=accelerator(), reference_free=False, beta=config.get("beta", 0.1), f_divergence_type=f_divergence,
                    label_smoothing=config.get("label_smoothing", 0.0), f_divergence_params=None)
    losses, chosen_rewards, rejected_rewards = dpo_loss(
        self, sums(chosen, CHOSEN), sums(rejected, REJECTED), sums(ref_chosen, CHOSEN), sums(ref_rejected, REJECTED), "sigmoid", {})
    # `get_batch_loss_metrics`: the cross entropy of the chosen completions' tokens is added to each pair's loss.
    losses = losses + config.get("rpo_alpha", 0.0) * -chosen.mean()
    return losses.mean(), chosen_rewards, rejected_rewards


def cases():
    """(name, whose code, configuration)."""
    for loss_type in LOSS_TYPES:
        for beta in (0.1, 0.5):
            smoothing = {"exo_pair": 1e-3, "robust": 0.1}.get(loss_type, 0.0)
            yield f"{loss_type}_beta_{beta}", "1.16", dict(loss_type=[loss_type], beta=beta, label_smoothing=smoothing)
    for loss_type in ("exo_pair", "robust", "aot", "aot_unpaired"):
        yield f"{loss_type}_smoothed", "1.16", dict(loss_type=[loss_type], beta=0.3, label_smoothing=0.2)
    for loss_type in ("sigmoid", "hinge", "ipo", "sigmoid_norm"):
        for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
            yield f"{loss_type}_{divergence}", "1.16", dict(loss_type=[loss_type], f_divergence_type=divergence)
    yield "alpha_1", "1.16", dict(f_divergence_type="alpha_divergence", f_alpha_divergence_coef=1.0)
    for alpha in (0.0, 0.4, 1.0):
        yield f"ld_alpha_{alpha}", "1.16", dict(ld_alpha=alpha)
        yield f"ipo_ld_alpha_{alpha}", "1.16", dict(loss_type=["ipo"], ld_alpha=alpha)
    # Some pairs past the hinge, some before it.
    yield "hinge_beta_3.0", "1.16", dict(loss_type=["hinge"], beta=3.0)
    yield "discopop_tau", "1.16", dict(loss_type=["discopop"], discopop_tau=0.5, beta=0.5)
    yield "mpo", "1.16", dict(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0])
    yield "two_of_equal_weight", "1.16", dict(loss_type=["sigmoid", "hinge"])
    yield "cdpo", "0.24", dict(label_smoothing=0.1)
    yield "cdpo_strong", "0.24", dict(label_smoothing=0.4, beta=1.0)
    yield "rpo", "0.24", dict(rpo_alpha=1.0)
    yield "rpo_cdpo", "0.24", dict(rpo_alpha=0.3, label_smoothing=0.1, beta=0.5)


def main():
    folder = arguments(__doc__, ("--trl-0.24", "the unpacked wheel of TRL 0.24.0")).__dict__["trl_0.24"]
    trainer = folder / "trl/trainer/dpo_trainer.py"
    kinds = stand_in(JS_DIVERGENCE=stand_in(value="js"), ALPHA_DIVERGENCE=stand_in(value="alpha"))
    old_loss = unpacked(trainer, "DPOTrainer", "dpo_loss", dict(torch=torch, F=F, FDivergenceType=kinds))
    generator = torch.Generator().manual_seed(3)
    inputs = {"chosen": logps(generator, sum(CHOSEN)), "rejected": logps(generator, sum(REJECTED))}
    for key in ("chosen", "rejected"):
        # Exact in f32, and some way from the policy.
        inputs[f"ref.{key}"] = (inputs[key] + draw(generator, len(inputs[key]), scale=0.4)).clamp(max=-0.01).float().double()
    tensors = {f"in.{key}": value for key, value in inputs.items()}
    told = {}
    for name, whose, config in cases():
        chosen, rejected = (inputs[key].clone().requires_grad_() for key in ("chosen", "rejected"))
        arguments_ = (chosen, rejected, inputs["ref.chosen"], inputs["ref.rejected"], config)
        if whose == "1.16":
            loss, chosen_rewards, rejected_rewards = trl_1_16(*arguments_)
        else:
            loss, chosen_rewards, rejected_rewards = trl_0_24(old_loss, "reverse_kl", *arguments_)
        loss.backward()
        tensors |= {f"{name}.loss": loss, f"{name}.rewards.chosen": chosen_rewards, f"{name}.rewards.rejected": rejected_rewards,
                    f"{name}.grad.chosen": chosen.grad}
        # `sft` never looks at the rejected completions.
        tensors[f"{name}.grad.rejected"] = torch.zeros_like(rejected) if rejected.grad is None else rejected.grad
        told[name] = config
    print("torch", torch.__version__, "TRL", trl.__version__)
    write("dpo", tensors, {"lengths": {"chosen": CHOSEN, "rejected": REJECTED}, "configurations": told})


if __name__ == "__main__":
    main()
