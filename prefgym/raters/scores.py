"""Statistics: what a rater adds up to say how good a segment is.

A statistic maps segments to one number each, in one vectorised pass and without ever reading a
padded step. Those here are sums over steps of a per-step score:

    partial return      Σ_t r_t
    discounted return   Σ_t γ^t r_t
    regret              Σ_t A*(s_t, a_t)  =  −regret

or, for the deterministic form of regret, the return with the values of both ends. Here ``t`` counts
from the start of the segment. The sum of advantages is minus the regret, so
that for every statistic the larger one is the better segment.

Source: partial return, Christiano et al. (2017), arXiv:1706.03741; regret, Knox et al. (2022),
"Models of human preference for learning reward functions", arXiv:2206.02231.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from prefgym.names import lookup
from prefgym.segments import Segments

Statistic = Callable[[Segments], Float[np.ndarray, " batch"]]
"""One number per segment; the larger, the better."""

StepScores = Callable[[Segments], Float[np.ndarray, " batch steps"]]
"""One number per step; what stands at padded steps is never read."""

ValueSource = Callable[
    [Shaped[np.ndarray, " batch *obs"], Shaped[np.ndarray, " batch *act"]],
    Float[np.ndarray, " batch"],
]
"""Observations and actions of some steps -> their advantages A(s, a) under the true reward."""


@runtime_checkable
class SegmentValueSource(Protocol):
    """A value source that reads whole segments, where no observation is kept of a step."""

    def of_segments(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """A(s_t, a_t) of every step; what stands at padded ones is never read."""
        ...


@runtime_checkable
class StateValueSource(Protocol):
    """A value source that knows the values of states too."""

    def __call__(
        self,
        observations: Shaped[np.ndarray, " batch *obs"],
        actions: Shaped[np.ndarray, " b *act"],
    ) -> Float[np.ndarray, " batch"]:
        """A(s, a) of some steps under the true reward."""
        ...

    def state_values(
        self, observations: Shaped[np.ndarray, " batch *obs"]
    ) -> Float[np.ndarray, " batch"]:
        """V(s) of some states, in units of return."""
        ...


@runtime_checkable
class SegmentStateValueSource(SegmentValueSource, Protocol):
    """A value source that reads whole segments, and knows the values of their states too."""

    def values_of_segments(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """V(s_t) before every step; what stands at padded ones is never read."""
        ...


@dataclass(frozen=True)
class OwnValues:
    """What an environment that solves itself knows, as one value source."""

    advantages: ValueSource
    values: Callable[[np.ndarray], np.ndarray]

    def __call__(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """A*(s, a) of some steps."""
        return self.advantages(observations, actions)

    def state_values(self, observations: np.ndarray) -> np.ndarray:
        """V*(s) of some states."""
        return self.values(observations)


@dataclass(frozen=True)
class StepSum:
    """The weighted sum of a score over the real steps of a segment.

    The weight of step ``t`` of a segment with ``n`` real steps is γ^t · ρ^(n−1−t).
    """

    step_scores: StepScores
    discount: float = 1.0
    """γ, weight of a step relative to the one *before*: below 1 the start counts more."""
    recency: float = 1.0
    """ρ, weight of a step relative to the one *after*: below 1 the end counts more."""

    def __post_init__(self) -> None:
        """Refuse weights that would grow without bound."""
        for name, value in (("discount", self.discount), ("recency", self.recency)):
            if not 0.0 < value <= 1.0:
                raise ValueError(
                    f"StepSum: {name} is {value}; choose a number above 0 and at most 1."
                )

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch"]:
        """One sum per segment, in the unit of the score.

        Raises:
            ValueError: the segments lack what the score reads, or it is NaN or infinite somewhere.
        """
        return _finite(_described(self.step_scores), self._sums(segments.numpy()))

    def _sums(self, segments: Segments) -> Float[np.ndarray, " batch"]:
        scores = self.step_scores(segments)
        if not segments.mask.all():
            scores = np.where(segments.mask, scores, 0.0)
        if self.discount < 1.0 or self.recency < 1.0:
            with np.errstate(invalid="ignore", over="ignore"):
                scores = scores * self._weights(segments.mask)
        # Walks short rows in a third of the time that sum() takes.
        sums: np.ndarray = np.einsum("bt->b", scores.astype(np.float64, copy=False))
        return sums

    def _weights(self, mask: Bool[np.ndarray, " batch steps"]) -> Float[np.ndarray, " batch steps"]:
        step = np.arange(mask.shape[1], dtype=np.float64)
        weights = np.broadcast_to(self.discount**step, mask.shape)
        if self.recency < 1.0:
            steps_left = np.maximum(mask.sum(axis=1, keepdims=True) - 1 - step, 0.0)
            weights = weights * self.recency**steps_left
        return weights


def step_rewards(segments: Segments) -> Float[np.ndarray, " batch steps"]:
    """The true reward of every step.

    Raises:
        ValueError: the segments were recorded without rewards, or with several per step.
    """
    if segments.rewards is None:
        raise ValueError(
            "Rater: these segments hold no rewards, and a return is a sum of rewards; give "
            "Segments(rewards=...), or take them from the environment's store."
        )
    return _per_step("rewards", segments.rewards, segments.mask)


@dataclass(frozen=True)
class StepAdvantages:
    """The advantages that the segments hold, else those of a value source."""

    value_source: ValueSource | None = None

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """A(s_t, a_t) of every step; 0 at padded ones.

        Raises:
            ValueError: neither the segments nor a value source know the advantages, or the value
                source needs observations that the segments lack or answers in a wrong shape.
        """
        if segments.advantages is not None:
            return _per_step("advantages", segments.advantages, segments.mask)
        if self.value_source is None:
            raise ValueError(
                "Rater: regret needs advantages, and there are none in these segments and no value "
                "source to ask; pass value_source=ExactTable(...) or a trained Critic from "
                "prefgym.values, or choose rater='partial-return'."
            )
        if isinstance(self.value_source, SegmentValueSource) and segments.observations is None:
            return _per_step("advantages", self.value_source.of_segments(segments), segments.mask)
        if segments.observations is None:
            raise ValueError(
                "Rater: the value source needs to see observations, and these segments hold none; "
                "give Segments(observations=...) or Segments(advantages=...)."
            )
        mask = segments.mask
        seen, done = (_real(one, mask) for one in (segments.observations, segments.actions))
        known = np.asarray(self.value_source(seen, done), np.float64)
        wanted = done.shape[:1]
        if known.shape != wanted:
            raise ValueError(
                f"Rater: the value source answered with shape {known.shape} for {wanted[0]} steps; "
                f"it must return one advantage per step, shape {wanted}."
            )
        if mask.all():
            return known.reshape(mask.shape)
        advantages = np.zeros(mask.shape)
        advantages[mask] = known
        return advantages


@dataclass(frozen=True)
class WeightedFactors:
    """What every step is worth to somebody who weighs the factors of the true reward anew."""

    weights: Mapping[str, float]
    """Factor -> weight; factors that are not named count nothing."""

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """Σ_k weight_k · factor_k of every step.

        Raises:
            ValueError: the segments lack a factor.
        """
        missing = [name for name in self.weights if name not in segments.factors]
        if missing:
            raise ValueError(
                f"Rater: the segments hold no factor {missing[0]!r}, only"
                f" {', '.join(sorted(segments.factors)) or 'none'}; choose among these."
            )
        total: np.ndarray = sum(
            (weight * segments.factors[name] for name, weight in self.weights.items()),
            np.zeros(segments.mask.shape),
        )
        return total


partial_return = StepSum(step_rewards)
"""Σ_t r_t: the undiscounted sum of the true rewards of a segment."""


def discounted_return(discount: float) -> StepSum:
    """Σ_t γ^t r_t, with ``t`` counted from the start of the segment.

    Args:
        discount: γ in (0, 1].
    """
    return StepSum(step_rewards, discount=discount)


@dataclass(frozen=True)
class DeterministicRegret:
    """Minus the regret where transitions are deterministic, from the values of both ends.

        Σ_{t<n−1} r_t + V(s_{n−1}) − V(s_0) + A(s_{n−1}, a_{n−1})

    which is Σ_t r_t + V(s_n) − V(s_0): a segment does not hold the state s_n behind its last
    action, so the last step is told by its advantage. Rewards along the way count as they came;
    luck on the way counts too, where there is any.

    Source: Knox et al. (2022), arXiv:2206.02231, equation for deterministic transitions.
    """

    value_source: StateValueSource | SegmentStateValueSource

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch"]:
        """One sum per segment, in units of return; 0 for a segment without steps.

        Raises:
            ValueError: the segments hold no rewards, or no observations where the value source
                reads these, or a value is not finite.
        """
        plain = segments.numpy()
        real = np.flatnonzero(plain.lengths > 0)
        on_the_way = np.arange(plain.steps) < plain.lengths[:, None] - 1
        sums = np.where(on_the_way, step_rewards(plain), 0.0).sum(1)
        before, after, last = self._ends(plain, real, plain.lengths[real] - 1)
        sums[real] += after - before + last
        return _finite("the rewards or the values", sums)

    def _ends(
        self, segments: Segments, real: Int[np.ndarray, " real"], last: Int[np.ndarray, " real"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """V of the first and of the last state, and A of the last step, of some segments."""
        source = self.value_source
        if segments.observations is not None and isinstance(source, StateValueSource):
            ends = segments.observations[real, last]
            states = np.concatenate([segments.observations[real, 0], ends])
            values = _checked("V(s)", source.state_values(states), states)
            before, after = np.split(values, 2)
            known = source(ends, segments.actions[real, last])
            return before, after, _checked("A(s, a)", known, ends)
        if isinstance(source, SegmentStateValueSource):
            values, advantages = source.values_of_segments(segments), source.of_segments(segments)
            values = _per_step("values", values, segments.mask)
            advantages = _per_step("advantages", advantages, segments.mask)
            return values[real, 0], values[real, last], advantages[real, last]
        raise ValueError(
            "Rater: regret in its deterministic form reads the first and the last observation, "
            "and these segments hold none; choose form='stochastic', the sum of advantages."
        )


def regret(
    value_source: ValueSource | None = None, form: str = "stochastic"
) -> StepSum | DeterministicRegret:
    """Minus the regret: 0 for an optimal segment and below 0 otherwise.

    "stochastic": Σ_t A(s_t, a_t). "deterministic": Σ r + V(s_n) − V(s_0), to which the sum of
    advantages telescopes where transitions are deterministic and nothing is discounted.

    Args:
        value_source: asked for the advantages of segments that do not hold them, and for the
            values of states.
        form: "stochastic" or "deterministic".

    Raises:
        ValueError: there is no such form, or nobody to ask for the values of states.
    """
    lookup(form, dict.fromkeys(_FORMS), "form of regret")
    if form == "stochastic":
        return StepSum(StepAdvantages(value_source))
    if not isinstance(value_source, StateValueSource | SegmentStateValueSource):
        came = "none came" if value_source is None else f"{value_source!r} has no state_values()"
        raise ValueError(
            "Rater: regret in its deterministic form needs a value source that knows V(s) too, and"
            f" {came}; pass a Critic or an ExactTable of prefgym.values, or choose"
            " form='stochastic'."
        )
    return DeterministicRegret(value_source)


_FORMS = ("stochastic", "deterministic")


def _checked(what: str, values: np.ndarray, asked: np.ndarray) -> Float[np.ndarray, " batch"]:
    known = np.asarray(values, np.float64)
    if known.shape != asked.shape[:1]:
        raise ValueError(
            f"Rater: the value source answered with shape {known.shape} when asked for {what} of"
            f" {len(asked)} steps; it must return one number each, shape ({len(asked)},)."
        )
    return known


def _finite(what: str, sums: Float[np.ndarray, " batch"]) -> Float[np.ndarray, " batch"]:
    wrong = ~np.isfinite(sums)
    if wrong.any():
        raise ValueError(
            f"Rater: {what} of segment {int(np.argmax(wrong))} are NaN or infinite, and such a "
            "segment cannot be compared; look for the step at which the environment (or its value "
            "source) went wrong."
        )
    return sums


def _per_step(
    what: str, values: np.ndarray, mask: Bool[np.ndarray, " batch steps"]
) -> Float[np.ndarray, " batch steps"]:
    if values.shape != mask.shape:
        raise ValueError(
            f"Rater: {what} have shape {values.shape}, wanted one number per step, {mask.shape}."
        )
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _real(
    values: Shaped[np.ndarray, " batch steps *rest"], mask: Bool[np.ndarray, " batch steps"]
) -> Shaped[np.ndarray, " real *rest"]:
    """The real steps of all segments in one row; a view where nothing is padded."""
    steps: np.ndarray = values.reshape(-1, *values.shape[2:]) if mask.all() else values[mask]
    return steps


def _described(step_scores: StepScores) -> str:
    if step_scores is step_rewards:
        return "the rewards"
    return "the advantages" if isinstance(step_scores, StepAdvantages) else "the step scores"
