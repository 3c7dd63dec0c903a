"""DPO's loss is as good as zero while half of its pairs are still ranked the wrong way round.

Source: Chen et al. (2024), "Preference learning algorithms do not learn preference rankings",
arXiv:2405.19534. A pair is ranked right when the policy finds the preferred response the likelier
one; its *implicit reward* is right when it became likelier compared with the reference.

A small model of tokens is fitted to a random language and then aligned by DPO until the mean loss
of its pairs is below 1e-2. Pairs differ in their opening, and one opening is always preferred:
nothing could be easier. The rest of the responses is what the reference would say, of all lengths,
so that it prefers one of them by some hundred nats for no reason. What decides is β times those
nats: responses of a language model are longer, and its β smaller.

The theorem is checked for every pair at every step: ranked right if and only if the loss of the
pair is below the one that :func:`prefgym.metrics.flipping_loss` names.

Controls, same model, same steps: the loss without reference, whose slope does not fade until a pair
is ranked right; and DPO with a β so small that its slope does not fade either. Both turn round a
good part of the pairs, so what keeps DPO from it is that the reference lets it stop early.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.direct_losses import RECIPES, Recipe, Side, direct_loss, log_likelihood
from prefgym.losses import logistic
from prefgym.metrics import flipping_loss, idealised_ranking_accuracy, ranking_accuracy

KEY = "ranking_accuracy"
CLAIM = (
    "DPO raises the reward accuracy to 1 and leaves the ranking accuracy where the reference had "
    "it: few pairs that the reference ranks wrongly are turned round."
)
WORDS, READ, LONGEST, SHORTEST = 64, 3, 100, 4
"""Of the language; the model reads so many words back. Word 0 is the preferred opening, 1 not."""
BETA, SMALL_BETA = 1.0, 0.01
RATE, STEPS, BATCH = 2e-3, 240, 32


class Pairs(NamedTuple):
    """Responses: the preferred ones and then, in the same order, the others."""

    words: Tensor
    """``[2 pairs, steps]``"""
    mask: Tensor
    """``[2 pairs, steps]`` true where a word is."""


class Aligned(NamedTuple):
    """What became of the pairs."""

    reward_accuracy: float
    ranking_accuracy: float
    flipped: float
    """Share of the pairs turned round, of those that the reference ranks wrongly."""
    loss: float
    """Mean loss of the pairs, nats."""
    against_theorem: int
    """Pairs ranked right without the loss for it or the reverse, over all steps and at the end."""


class Model(nn.Module):
    """P(word | the last three), by one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS + 1, 16)
        self.hidden = nn.Linear(16 * READ, 64)
        self.out = nn.Linear(64, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        """Log-probability of every word, ``[batch, steps]``."""
        before = nn.functional.pad(words[:, :-1], (READ, 0), value=WORDS).unfold(1, READ, 1)
        logits = self.out(torch.tanh(self.hidden(self.embed(before).flatten(2))))
        found: Tensor = logits.log_softmax(-1).gather(-1, words[..., None])[..., 0]
        return found


def run(seed: int, quick: bool) -> ClaimResult:
    """DPO, and the two losses that do turn pairs round."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    language = torch.randn(WORDS, WORDS, generator=random).softmax(-1)
    model = fitted(language, random)
    pairs = drawn(language, 400 if quick else 1000, random)
    with torch.no_grad():
        reference = model(pairs.words)
    start = model.state_dict()
    margins = _margins(reference, pairs)

    dpo = replace(RECIPES["dpo"], beta=BETA)
    aligned = {
        name: align(start, recipe, pairs, reference, seed)
        for name, recipe in {
            "dpo": dpo,
            "free": replace(dpo, anchored=False),
            "small_beta": replace(dpo, beta=SMALL_BETA),
        }.items()
    }
    found = aligned["dpo"]
    before = ranking_accuracy(margins, np.zeros_like(margins))
    rows = [
        Row("DPO: accuracy of the implicit reward", found.reward_accuracy, ">=", 0.99),
        Row("DPO: mean loss, nats", found.loss, "<=", 0.01),
        Row("DPO: ranking accuracy gained", found.ranking_accuracy - before, "<=", 0.05),
        Row("DPO: share of wrong pairs turned round", found.flipped, "<=", 0.10),
        Row("pairs against the theorem, all steps", found.against_theorem, "==", 0),
    ]
    controls = [
        Row(f"{told}: share of wrong pairs turned round", aligned[name].flipped, ">=", 0.40)
        for name, told in {"free": "no reference", "small_beta": f"beta {SMALL_BETA}"}.items()
    ]
    sure = np.full(len(margins), 0.99)
    figures = {
        "reference": before,
        "spread_nats": float(margins.std()),
        "idealised_0.99": idealised_ranking_accuracy(margins, sure, BETA),
        "idealised_0.99_small_beta": idealised_ranking_accuracy(margins, sure, SMALL_BETA),
        "log10_loss_needed": float(np.median(margins[margins < 0]) * BETA / np.log(10)),
        **{f"{name}_ranking": one.ranking_accuracy for name, one in aligned.items()},
        **{f"{name}_flipped": one.flipped for name, one in aligned.items()},
        **{f"{name}_loss": one.loss for name, one in aligned.items()},
        "reward": found.reward_accuracy,
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def fitted(language: Tensor, random: torch.Generator) -> Model:
    """A model of the language."""
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        words, mask = drawn(language, 32, random)
        loss = -model(words)[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def drawn(language: Tensor, count: int, random: torch.Generator) -> Pairs:
    """So many pairs of responses of any length; they differ in their opening."""
    word = torch.arange(2).repeat_interleave(count)
    words = [word]
    while len(words) < LONGEST:
        word = torch.multinomial(language[word], 1, generator=random)[:, 0]
        words.append(word)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (2 * count, 1), generator=random)
    mask = torch.arange(LONGEST) < lengths
    return Pairs(torch.where(mask, torch.stack(words, 1), 0), mask)


def align(
    start: dict[str, Tensor], recipe: Recipe, pairs: Pairs, reference: Tensor, seed: int
) -> Aligned:
    """Follow a direct loss from the reference, and compare with the theorem at every step."""
    model = Model()
    model.load_state_dict(start)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    random = torch.Generator().manual_seed(seed)
    count = len(pairs.words) // 2
    against = 0
    for _ in range(STEPS):
        first = torch.randperm(count, generator=random)[:BATCH]
        rows = torch.cat([first, first + count])
        batch = Pairs(pairs.words[rows], pairs.mask[rows])
        loss, wrong = _compared(model, recipe, batch, reference[rows])
        against += wrong
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        loss, wrong = _compared(model, recipe, pairs, reference)
        before, after = _margins(reference, pairs), _margins(model(pairs.words), pairs)
    zero = np.zeros_like(after)
    return Aligned(
        reward_accuracy=ranking_accuracy(after, before),
        ranking_accuracy=ranking_accuracy(after, zero),
        flipped=ranking_accuracy(after[before < 0], zero[before < 0]),
        loss=float(loss),
        against_theorem=against + wrong,
    )


def _compared(model: Model, recipe: Recipe, pairs: Pairs, reference: Tensor) -> tuple[Tensor, int]:
    """The mean loss, and how many pairs are against the theorem."""
    known = model(pairs.words)
    sides = [
        Side(*parts)
        for parts in zip(known.chunk(2), pairs.mask.chunk(2), reference.chunk(2), strict=True)
    ]
    loss = direct_loss(recipe, *sides, torch.ones(len(known) // 2)).mean()
    before, after = _margins(reference, pairs), _margins(known.detach(), pairs)
    gained = torch.from_numpy(recipe.beta * (after - before))
    of_dpo = logistic(gained, torch.ones_like(gained)).numpy()
    below = of_dpo < flipping_loss(before, recipe.beta)
    return loss, int((below != (after > 0)).sum())


def _margins(log_prob: Tensor, pairs: Pairs) -> np.ndarray:
    """How much likelier the preferred response of each pair is, nats."""
    whole = log_likelihood(log_prob.double(), pairs.mask)
    first, second = whole.numpy().reshape(2, -1)
    margins: np.ndarray = first - second
    return margins
