"""What all preference models share: members × head, whatever reads the segments.

A subclass says how segments become ``head.width`` numbers per step and member; comparing them,
rewards, their scale, and who was asked are the same for robots and for text.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prefgym.comparisons import Comparisons
from prefgym.models.features import as_tensor
from prefgym.models.fit import Pairs
from prefgym.models.heads import GeneralPreferenceHead, Heard, RewardHead
from prefgym.models.populations import Evidence, PopulationHead
from prefgym.rewards import CONSTANT, Aggregator, mean_reward
from prefgym.segments import Segments


class Voices(NamedTuple):
    """How much of each taste some raters have, as a model inferred it from a few answers."""

    rater_id: Int[np.ndarray, " raters"]
    """Sorted."""
    weights: Float[Tensor, " raters members tastes"]


class Ensemble(nn.Module):
    """Members that compare segments through one head; see the subclasses.

    Args:
        head: says what the numbers of a step are worth.
        members: networks in the ensemble.
        device: of the buffers.
    """

    reward_mean: Tensor
    reward_deviation: Tensor
    group_mean: Tensor
    group_deviation: Tensor

    def __init__(self, head: RewardHead | PopulationHead, members: int, device: Any = None) -> None:
        super().__init__()
        self.head = head
        groups = head.groups if isinstance(head, PopulationHead) else 1
        self.register_buffer("reward_mean", torch.zeros(members, device=device))
        self.register_buffer("reward_deviation", torch.ones(members, device=device))
        self.register_buffer("group_mean", torch.zeros(groups, members, device=device))
        self.register_buffer("group_deviation", torch.ones(members, device=device))

    # -- what a subclass says ----------------------------------------------------------------

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        raise NotImplementedError

    def features(self, segments: Segments) -> Tensor:
        """What is read of each segment."""
        raise NotImplementedError

    def steps(self, features: Tensor, mask: Bool[Tensor, " members rows steps"]) -> Tensor:
        """``[members, rows, steps, head.width]`` of every member's own rows, with gradient."""
        raise NotImplementedError

    def beginnings(self, features: Tensor, mask: Bool[Tensor, " members rows steps"]) -> Tensor:
        """``[members, rows, numbers]``: how each segment begins, without gradient."""
        raise NotImplementedError

    def means(self, features: Tensor, mask: Bool[Tensor, " rows steps"]) -> Tensor:
        """``[rows, numbers]``: what each segment is like on average, without gradient."""
        raise NotImplementedError

    def outputs(self, segments: Segments) -> Tensor:
        """``[members, batch, steps, head.width]``, without gradient and in bounded memory."""
        raise NotImplementedError

    # -- comparing ---------------------------------------------------------------------------

    def margins(self, pairs: Pairs) -> Float[Tensor, " members pairs"]:
        """How much better each member finds the first segment, with gradient: what `fit` calls."""
        a, b = self._summaries(pairs)
        return self.head.margin(a, b, self._heard(pairs))

    @torch.no_grad()
    def logits(
        self,
        a: Segments,
        b: Segments,
        rater_id: Int[np.ndarray, " batch"] | None = None,
        voices: Voices | None = None,
    ) -> Float[Tensor, " members batch"]:
        """Each member's log-odds that ``a[i]`` is preferred to ``b[i]``, without gradient.

        Rewards are taken as fitted, not as standardised.

        Args:
            a: the first segments.
            b: the second ones.
            rater_id: who is asked; None asks the population as a whole.
            voices: what :meth:`infer` found out about raters who were not fitted.

        Raises:
            ValueError: a rater that the model, or ``voices``, has not heard of.
        """
        one, other = self._summary(a), self._summary(b)
        if not isinstance(self.head, PopulationHead):
            return self.head.margin(one, other)
        if voices is not None:
            return self.head.margin_of(one, other, _spoken(voices, rater_id, len(a)))
        context = self._context(a, b)
        if rater_id is None:
            return self.head.margin_of_all(one, other, context)
        return self.head.margin(one, other, Heard(self._asked(rater_id), context))

    @torch.no_grad()
    def told_apart(self, a: Segments, b: Segments) -> Float[Tensor, " members batch tastes"]:
        """By how much each taste prefers ``a[i]`` to ``b[i]``, without gradient."""
        return self._summary(a) - self._summary(b)

    @torch.no_grad()
    def begun(self, a: Segments, b: Segments) -> Float[Tensor, " members batch numbers"]:
        """How the two segments of each pair begin, as a population reads it.

        Raises:
            ValueError: the model reads no context.
        """
        context = self._context(a, b) if isinstance(self.head, PopulationHead) else None
        if context is None:
            raise ValueError(f"{type(self).__name__}.begun: the model reads no context.")
        return context

    def infer(self, comparisons: Comparisons) -> Voices:
        """What raters who were not fitted are like, from a few of their answers.

        Raises:
            ValueError: the model knows no raters.
        """
        if not isinstance(self.head, PopulationHead):
            raise ValueError(
                f"{type(self).__name__}.infer: a {type(self.head).__name__} knows no raters; choose"
                " a population (pal, vpl, maxmin)."
            )
        a, b = comparisons.a, comparisons.b
        differences = self.told_apart(a, b)
        with torch.no_grad():
            read = torch.stack([self.outline(side) for side in (a, b)], 1)
        ids, index = np.unique(comparisons.rater_id, return_inverse=True)
        evidence = Evidence(read, as_tensor(comparisons.label).to(read), as_tensor(index))
        return Voices(ids, self.head.population.infer(evidence, differences, len(ids)))

    def resembles(self, voices: Voices) -> Int[np.ndarray, " raters"]:
        """The fitted rater whose weights are nearest to each voice's: whom to serve instead.

        Raises:
            ValueError: the model knows no raters.
        """
        if not isinstance(self.head, PopulationHead) or self.head.groups < 2:
            raise ValueError(f"{type(self).__name__}.resembles: the model tells no raters apart.")
        with torch.no_grad():
            known = self.head.population.group_weights(None)[:, :, 0]
        distance = (voices.weights[:, None] - known[None]).square().sum((-1, -2))
        nearest: np.ndarray = distance.argmin(1).cpu().numpy()
        return nearest

    # -- rewards -----------------------------------------------------------------------------

    @torch.no_grad()
    def member_rewards(self, segments: Segments) -> Float[Tensor, " members batch steps"]:
        """Each member's rewards as fitted, without gradient; zeros at padding.

        Where raters have tastes of their own, the mean over them.

        Raises:
            RuntimeError: a reward is NaN or infinite.
        """
        if isinstance(self.head, PopulationHead):
            return self.head.mixed(self.group_rewards(segments))
        mask = as_tensor(segments.mask).to(self.device)
        return finite(self.head.rewards(self.outputs(segments)) * mask)

    @torch.no_grad()
    def group_rewards(self, segments: Segments) -> Float[Tensor, " groups members batch steps"]:
        """The rewards of each group of raters as fitted, zeros at padding; one group if pooled.

        Raises:
            RuntimeError: a reward is NaN or infinite.
        """
        if not isinstance(self.head, PopulationHead):
            return self.member_rewards(segments)[None]
        mask = as_tensor(segments.mask).to(self.device)
        context = self._context(segments, segments)
        return finite(self.head.group_rewards(self.outputs(segments), context) * mask)

    def rewards(
        self, segments: Segments, aggregate: Aggregator = mean_reward
    ) -> Float[Tensor, " batch steps"]:
        """What every step is worth, without gradient; zeros at padding.

        Args:
            segments: numpy or torch.
            aggregate: makes one reward of the members' standardised ones (``prefgym.rewards``).
        """
        mask = as_tensor(segments.mask).to(self.device)
        mean, deviation = self.reward_mean[:, None, None], self.reward_deviation[:, None, None]
        return aggregate((self.member_rewards(segments) - mean) / deviation) * mask

    def rewards_by_group(
        self, segments: Segments, aggregate: Aggregator = mean_reward
    ) -> Float[Tensor, " groups batch steps"]:
        """:meth:`rewards` of each group; each has mean 0 where :meth:`standardise` looked.

        All are divided by one number per member, so that who cares more still does; together they
        have standard deviation 1. (That of their mean is smaller where groups disagree, and may
        be 0 where they want opposite things.)
        """
        mask = as_tensor(segments.mask).to(self.device)
        rewards = self.group_rewards(segments) - self.group_mean[..., None, None]
        rewards = rewards / self.group_deviation[:, None, None]
        return torch.stack([aggregate(group) for group in rewards]) * mask

    @torch.no_grad()
    def standardise(self, segments: Segments) -> None:
        """Give :meth:`rewards` mean 0 and standard deviation 1 over the steps of ``segments``.

        Members are first brought to one scale each, so that none outvotes the others. A reward
        that is constant there is only shifted. A head that compares with a crowd meets these
        segments. Source: Christiano et al. (2017), sec. 2.2.1 and 2.2.3, arXiv:1706.03741.

        Raises:
            ValueError: no real step to measure on.
        """
        mask = as_tensor(segments.mask).to(self.device)
        if isinstance(self.head, GeneralPreferenceHead):
            self.head.meet(self._summary(segments))
        grouped = self.group_rewards(segments)
        mixed = grouped[0]
        if isinstance(self.head, PopulationHead):
            mixed = self.head.mixed(grouped)
        mean, deviation = reward_scale(mixed[:, mask])
        self.reward_mean.copy_(mean)
        self.reward_deviation.copy_(deviation)
        each = grouped[..., mask]
        self.group_mean.copy_(each.mean(-1))
        centred = (each - self.group_mean[..., None]).transpose(0, 1).flatten(1)
        self.group_deviation.copy_(reward_scale(centred)[1])

    def uncentre(self) -> None:
        """Leave rewards where the fit put them: where episodes end, a constant per step counts."""
        self.reward_mean.zero_()
        self.group_mean.zero_()

    def outline(self, segments: Segments) -> Float[Tensor, " batch numbers"]:
        """A few numbers that say what a segment is like, without gradient."""
        mask = as_tensor(segments.mask).to(self.device)
        return self.means(self.features(segments), mask)

    # -- who was asked -----------------------------------------------------------------------

    def await_raters(self) -> None:
        """From now on fits are to answers of whom a learner asked so far: others will answer, too.

        That some did not yet is then a warning, not an error.
        """
        if isinstance(self.head, PopulationHead):
            self.head.population.awaits_raters = True

    def begin(self, pairs: Pairs, label: Tensor, rng: np.random.Generator) -> None:
        """A fit begins to these pairs, ``[1, P]``: tell the population who said what."""
        if isinstance(self.head, PopulationHead):
            read = self.means(pairs.features[0].flatten(0, 1), pairs.mask[0].flatten(0, 1))
            evidence = Evidence(read.unflatten(0, (-1, 2)), label, pairs.rater_id[0])
            self.head.population.begin(evidence, int(rng.integers(2**62)))

    @property
    def reassesses(self) -> bool:
        """Whether :meth:`reassess` does anything."""
        return isinstance(self.head, PopulationHead) and self.head.population.reassesses

    @torch.no_grad()
    def differences(self, pairs: Pairs) -> Float[Tensor, " members pairs tastes"]:
        """By how much each taste prefers the first segments."""
        a, b = self._summaries(pairs)
        return a - b

    def reassess(
        self,
        differences: Float[Tensor, " members pairs tastes"],
        label: Float[Tensor, " pairs"],
        rater_id: Int[Tensor, " pairs"],
    ) -> None:
        """Before each pass: who is it that speaks, given what every taste says of all pairs."""
        assert isinstance(self.head, PopulationHead)
        self.head.population.reassess(differences, label, rater_id)

    def penalty(self) -> Tensor | float:
        """What the population adds to the mean loss of the last margins, summed over members."""
        return self.head.population.penalty if isinstance(self.head, PopulationHead) else 0.0

    def _summaries(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        mask = pairs.mask.flatten(1, 2)
        summary = self.head.summary(self.steps(pairs.features.flatten(1, 2), mask), mask)
        a, b = summary.unflatten(1, (-1, 2)).unbind(2)
        return a, b

    def _heard(self, pairs: Pairs) -> Heard | None:
        if not isinstance(self.head, PopulationHead):
            return None
        if not self.head.population.reads_context:
            return Heard(pairs.rater_id, None)
        begun = self.beginnings(pairs.features.flatten(1, 2), pairs.mask.flatten(1, 2))
        return Heard(pairs.rater_id, begun.unflatten(1, (-1, 2)).mean(2))

    def _context(self, a: Segments, b: Segments) -> Tensor | None:
        assert isinstance(self.head, PopulationHead)
        if not self.head.population.reads_context:
            return None
        begun = []
        for side in (a, b):
            mask = as_tensor(side.mask).to(self.device)
            read = self.features(side)
            begun.append(self.beginnings(read[None], mask[None]))
        return torch.stack(begun).mean(0).expand(self.members, -1, -1)

    def _asked(self, rater_id: Int[np.ndarray, " batch"]) -> Tensor:
        return as_tensor(rater_id).to(self.device).expand(self.members, -1)

    def _summary(self, segments: Segments) -> Tensor:
        mask = as_tensor(segments.mask).to(self.device)
        return self.head.summary(self.outputs(segments), mask[None])


def finite(rewards: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """The same rewards.

    Raises:
        RuntimeError: one is NaN or infinite.
    """
    if not torch.isfinite(rewards).all():
        raise RuntimeError(
            "RewardModel: a reward is NaN or infinite, so a fit has gone astray; go back to a "
            "saved model, and lower the learning rate."
        )
    return rewards


def mean_step(
    steps: Float[Tensor, " batch steps numbers"], mask: Bool[Tensor, " batch steps"]
) -> Float[Tensor, " batch numbers"]:
    """The mean over the real steps; zeros where there are none."""
    return (steps * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def reward_scale(
    rewards: Float[Tensor, " members steps"],
) -> tuple[Float[Tensor, " members"], Float[Tensor, " members"]]:
    """What to take off each member's rewards, and then to divide them by.

    Raises:
        ValueError: no step to measure on.
    """
    if not rewards.shape[1]:
        raise ValueError("RewardModel.standardise: got no steps; give segments with some.")
    mean = rewards.mean(1)
    rewards = rewards - mean[:, None]
    own = _scale(rewards.std(1, correction=0))
    joint = _scale((rewards / own[:, None]).mean(0).std(correction=0))
    return mean, own * joint


def _scale(deviation: Tensor) -> Tensor:
    return torch.where(deviation > CONSTANT, deviation, torch.ones_like(deviation))


def _spoken(
    voices: Voices, rater_id: Int[np.ndarray, " batch"] | None, batch: int
) -> Float[Tensor, " members batch tastes"]:
    """The weights of whoever is asked about each pair."""
    if rater_id is None:
        raise ValueError("logits: voices came without rater_id; say who is asked about each pair.")
    index = np.searchsorted(voices.rater_id, rater_id).clip(max=len(voices.rater_id) - 1)
    unknown = voices.rater_id[index] != rater_id
    if unknown.any():
        raise ValueError(
            f"logits: rater {rater_id[unknown][0]} is not among the {len(voices.rater_id)} voices; "
            "give infer() some of that rater's answers first."
        )
    return voices.weights[as_tensor(index)].transpose(0, 1).expand(-1, batch, -1)
