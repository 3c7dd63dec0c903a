"""Record what TRL's trainers compute for fixed log-probabilities: ``python record_trl_losses.py``.

Run in an environment of its own with ``pip install "trl==1.16.0" "torch==2.13.0"``; it writes
``trl_losses.json`` beside itself, which tests/test_direct_losses.py reads. The trainers' own loss
methods are called on a stand-in for the trainer (its settings, no weights) with a model that
returns the recorded log-probabilities.

Chosen responses have one length, because TRL averages likelihood terms over all tokens of a batch;
lengths of rejected ones differ.
"""

import json
import random
from collections import defaultdict
from pathlib import Path
from types import MethodType, SimpleNamespace

PAIRS, STEPS, CHOSEN_STEPS = 4, 6, 4
DPO = {
    "dpo": {"loss_types": ["sigmoid"], "beta": 0.1},
    "hinge": {"loss_types": ["hinge"], "beta": 0.05},
    "ipo": {"loss_types": ["ipo"], "beta": 0.1},
    "exo": {"loss_types": ["exo_pair"], "beta": 0.1, "label_smoothing": 1e-3},
    "rdpo": {"loss_types": ["robust"], "beta": 0.1, "label_smoothing": 0.1},
    "rpo": {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "beta": 0.5},
    "dpo, mean log-ratios": {"loss_types": ["sigmoid_norm"], "beta": 0.1},
}
CPO = {
    "cpo": {"loss_type": "sigmoid", "beta": 0.1, "cpo_alpha": 1.0},
    "cdpo, no anchor": {"loss_type": "sigmoid", "beta": 0.1, "label_smoothing": 0.1},
    "simpo": {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5},
}


def draw(rng):
    """Log-probabilities of policy and reference, and lengths, of both sides of every pair."""

    def side(lengths):
        rows = [[round(-rng.expovariate(1.0) - 0.01, 4) for _ in range(n)] for n in lengths]
        return [row + [0.0] * (STEPS - len(row)) for row in rows]

    lengths = {
        "chosen": [CHOSEN_STEPS] * PAIRS,
        "rejected": [rng.randint(2, STEPS) for _ in range(PAIRS)],
    }
    mismatched = lengths["chosen"] + lengths["rejected"]
    return {
        "lengths": {**lengths, "mismatched": mismatched},
        "policy": {name: side(of) for name, of in {**lengths, "mismatched": mismatched}.items()},
        "anchor": {name: side(of) for name, of in {**lengths, "mismatched": mismatched}.items()},
    }


def stand_in(**settings):
    """A trainer without weights."""
    same = SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x, gather=lambda x: x)
    return SimpleNamespace(
        accelerator=same,
        model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        **settings,
    )


def as_model(log_prob):
    """A model that knows nothing but these log-probabilities, as TRL's fused heads return them."""
    import torch

    nothing = torch.zeros_like(log_prob)
    outputs = SimpleNamespace(
        log_probs=log_prob, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
    )
    return lambda **_: outputs


def completion(lengths):
    """Input ids and the mask of completions behind a prompt of one token."""
    import torch

    real = torch.arange(STEPS) < torch.tensor(lengths)[:, None]
    mask = torch.cat([torch.zeros(len(lengths), 1, dtype=torch.long), real.long()], 1)
    return {"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask}


def dpo(data, settings):
    """``DPOTrainer._compute_loss``."""
    import torch
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = stand_in(
        **{"label_smoothing": 0.0, "loss_weights": [1.0], **settings},
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    anchor = {side: torch.tensor(data["anchor"][side]).sum(1) for side in ("chosen", "rejected")}
    batch = completion(data["lengths"]["chosen"] + data["lengths"]["rejected"])
    batch |= {f"ref_{side}_logps": known for side, known in anchor.items()}
    model = as_model(torch.tensor(data["policy"]["chosen"] + data["policy"]["rejected"]))
    return DPOTrainer._compute_loss(trainer, model, batch, False)


def kto(data):
    """``KTOTrainer._compute_loss``."""
    import torch
    from trl.trainer.kto_trainer import KTOTrainer

    sides = ("chosen", "rejected")
    mismatched = torch.tensor(data["policy"]["mismatched"]).sum(1)
    trainer = stand_in(
        beta=0.1,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=1.2,
        undesirable_weight=0.8,
        _compute_kl_logps=lambda model, batch: mismatched,
    )
    anchor = [torch.tensor(data["anchor"][side]).sum(1) for side in sides]
    batch = completion(data["lengths"]["chosen"] + data["lengths"]["rejected"])
    batch["label"] = torch.tensor([1] * PAIRS + [0] * PAIRS)
    batch["ref_logps"] = torch.cat(anchor)
    batch["ref_KL_logps"] = torch.tensor(data["anchor"]["mismatched"]).sum(1)
    model = as_model(torch.tensor(data["policy"]["chosen"] + data["policy"]["rejected"]))
    return KTOTrainer._compute_loss(trainer, model, batch, False)


def with_logits(kind, data, settings):
    """``get_batch_loss_metrics`` of the trainers that read logits: a vocabulary of two tokens."""
    import torch

    trainer = stand_in(
        **{"label_smoothing": 0.0, "cpo_alpha": 0.0, "alpha": 0.0, **settings},
        is_encoder_decoder=False,
        pad_token_id=0,
        padding_value=0,
        concatenated_inputs=kind.concatenated_inputs,
        get_batch_logps=kind.get_batch_logps,
    )
    for name in ("cpo_loss", "odds_ratio_loss", "concatenated_forward"):
        if hasattr(kind, name):
            setattr(trainer, name, MethodType(getattr(kind, name), trainer))
    batch = {}
    for side in ("chosen", "rejected"):
        one = completion(data["lengths"][side])
        real = one["completion_mask"]
        attended = real.clone()
        attended[:, 0] = 1
        batch[f"{side}_input_ids"] = torch.ones_like(real)
        batch[f"{side}_attention_mask"] = attended
        batch[f"{side}_labels"] = torch.where(real == 1, 1, -100)
    taken = torch.tensor(data["policy"]["chosen"] + data["policy"]["rejected"])
    other = torch.log(-torch.expm1(taken.clamp(max=-1e-6)))
    logits = torch.stack([other, taken], 2)
    logits = torch.cat([logits, torch.zeros(2 * PAIRS, 1, 2)], 1)
    loss, _ = kind.get_batch_loss_metrics(trainer, lambda *_, **__: logits_of(logits), batch)
    return loss


def logits_of(logits):
    """Outputs of a model with logits."""
    return SimpleNamespace(logits=logits)


def main():
    """Write the figures."""
    import trl
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    data = draw(random.Random(6))
    figures = {name: float(dpo(data, settings)) for name, settings in DPO.items()}
    figures |= {name: float(with_logits(CPOTrainer, data, of)) for name, of in CPO.items()}
    figures["orpo"] = float(with_logits(ORPOTrainer, data, {"beta": 0.1}))
    figures["kto"] = float(kto(data))
    settings = {**DPO, **CPO, "orpo": {"beta": 0.1}}
    settings["kto"] = {"beta": 0.1, "desirable_weight": 1.2, "undesirable_weight": 0.8}
    whole = {"trl": trl.__version__, "settings": settings, "losses": figures, **data}
    path = Path(__file__).with_name("trl_losses.json")
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(of)}" for name, of in whole.items())
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
