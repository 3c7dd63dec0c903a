"""Learn a policy from preferences without a reward: DPO and its kin, and CPL.

Sources: Rafailov et al. (2023), arXiv:2305.18290; Hejna et al. (2023), arXiv:2310.13639 (CPL); the
others at the top of :mod:`prefgym.direct_losses`, whose recipes are the presets here.

The loop: act with the policy until the share k / rounds of the steps was taken; then ask about
pairs of what was collected since, and descend the direct loss on the comparisons, minibatch after
minibatch, against the anchor's log-probabilities, which are computed once per comparison and
round. One round collects everything with the starting policy and learns at the end; more rounds
are the iterative forms, whose anchor is the starting policy or the policy that began the round.

Given comparisons (``data=``) the learner neither acts nor asks, and ``learn(n)`` takes ``n``
gradient steps.

Another call of ``learn`` with ``reset_num_timesteps=False`` after all rounds are over holds as many
rounds again and asks for as many labels again, as far as the environment's budget goes.

What a label means. The implicit reward of a segment is its advantage: labels by regret fit, labels
by return fit only where both segments begin alike and run to the end of an episode. CPL checks
what the labels mean, as they were collected, and refuses others; ``meaning=None`` lets it try.

Metrics: ``pref/labelled``, ``pref/skipped``, ``pref/ties`` (share), ``pref/sessions``,
``pref/asked_now``; of the last pass over the comparisons, measured before each step:
``direct/loss``, ``direct/accuracy`` (share of decided pairs whose preferred side scores higher),
``direct/margin`` (by how many nats, on average), ``direct/preferred`` and ``direct/other`` (scores
of both sides: the log-ratio to the anchor where there is one); ``direct/pairs``,
``direct/gradient_steps``; seconds as ``time/<phase>``, and what the backend says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.direct_losses import RECIPES, Recipe, Side, direct_loss, scores
from prefgym.names import lookup
from prefgym.segments import Segments
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.learner import Learner, acted, given


@dataclass(frozen=True)
class Config:
    """Settings of direct learning; those of the recipe can be given beside them."""

    recipe: Recipe = field(default_factory=Recipe)
    """The loss."""
    labels: int = 200
    """Comparisons to ask for until all rounds are over."""
    rounds: int = 1
    """How often to ask and to learn, evenly spread over the steps."""
    anchor: Literal["start", "round"] = "start"
    """Who is kept near: the policy as its backend was made, or as the round began."""
    learn_from: Literal["all", "round"] = "all"
    """Whether a round learns from all comparisons, or from its own alone."""
    epochs: int = 20
    """Passes over those comparisons per round."""
    batch_pairs: int = 32
    """Comparisons per gradient step."""
    meaning: str | None = None
    """What labels have to mean ("regret"); None takes any."""
    seed: int = 0
    """Of the choice of pairs and of their order."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        for name in ("labels", "rounds", "epochs", "batch_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; wanted at least 1.")
        for name, known in (("anchor", ("start", "round")), ("learn_from", ("all", "round"))):
            lookup(getattr(self, name), dict.fromkeys(known), name)


PRESETS: dict[str, Config] = {
    **{name: Config(recipe) for name, recipe in RECIPES.items()},
    "irepo": Config(RECIPES["irepo"], rounds=4, anchor="round", learn_from="round"),
    "cpl": Config(RECIPES["cpl"], meaning="regret"),
}
_OWN = {one.name: one for one in fields(Config)}
_RECIPES = {one.name: one for one in fields(Recipe)}


class DirectPreference(Learner):
    """Every direct loss, on any backend.

    Args:
        policy: who acts and improves; its environment is asked for preferences.
        config: the settings, or the name of a preset: dpo, cdpo, rdpo, ipo, hinge, exo, kto, orpo,
            simpo, cpo, rpo, irepo or cpl.
        data: comparisons to learn from instead of asking; then ``learn`` counts gradient steps.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ, of :class:`Config` or of
            :class:`~prefgym.direct_losses.Recipe`.

    Raises:
        ValueError: unknown settings, a policy without log-probabilities, a budget smaller than
            ``labels``, labels of another meaning, or data that do not fit the environment.

    Example: ``DirectPreference(backend, "dpo", beta=0.3, labels=500).learn(50_000)``.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        config: Config | str = "dpo",
        *,
        data: PreferenceDataset | Comparisons | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(policy, tensorboard_log, verbose)
        self.config = _changed(config, changes)
        if not policy.has_log_prob:
            raise ValueError(
                "This policy acts deterministically, so its actions have no log-probability, which"
                " direct losses learn by; take an algorithm that draws actions, such as PPO or SAC."
            )
        self.data = given(self.env, data)
        self._check_labels()
        if self.data is None:
            self.check_budget(self.config.labels)
            self.env.stop_emitting()
        self.rounds = 0
        """Rounds that are over."""
        self.gradient_steps = 0
        """Gradient steps taken so far."""
        self.told: dict[str, float] = {}
        """Metrics of the last round."""
        self._asked_at = 0
        self._since = _Since()
        self._material: _Material | None = None
        self._anchors: dict[str, np.ndarray] = {}

    @property
    def num_timesteps(self) -> int:
        """Environment steps over all lanes; gradient steps where comparisons were given."""
        return self.policy.num_timesteps if self.data is None else self.gradient_steps

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act, and at the end of a round ask and learn; or one pass over given comparisons."""
        if self.data is not None:
            if self._material is None:
                self._material = self._prepared(self.data)
            return self._pass(self._material, total_timesteps - self.gradient_steps)
        if self.rounds - self._since.rounds == self.config.rounds:
            self._plan_again()
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        since = self._since.steps
        rounds = self._due((self.policy.num_timesteps - since) / (total_timesteps - since))
        if rounds > 0:
            self._round(rounds)
        return dict(self.told)

    def _plan_again(self) -> None:
        """All rounds are over, and there is more to come: as many rounds and labels again.

        Raises:
            ValueError: the environment's budget does not allow as many labels again.
        """
        asked = len(self.env.preferences)
        self.check_budget(asked + self.config.labels)
        self._since = _Since(self.policy.num_timesteps, self.rounds, asked)

    def _due(self, progress: float) -> int:
        """Rounds whose end has come and which were not held: evenly spread over the steps."""
        reached = min(self.config.rounds, int(self.config.rounds * progress))
        return self._since.rounds + reached - self.rounds

    def _round(self, rounds: int) -> None:
        """Ask for the labels of so many rounds about what was collected since, and learn."""
        answers = self._ask(rounds)
        self.rounds += rounds
        preferences, read = self.env.preferences, answers
        if self.config.learn_from == "all" and len(preferences):
            read = preferences.comparisons
        read = read or None
        self.told = {}
        if read is not None:
            material = self._prepared(acted(read))
            for _ in range(self.config.epochs):
                self.told = self._pass(material)
            self._anchors = {}
        self.told |= self.preference_metrics(self.rounds, answers, read)

    def _ask(self, rounds: int) -> Comparisons | None:
        """Put the labels of so many rounds to the environment's rater."""
        config, steps = self.config, self.policy.num_timesteps
        missing = self._since.labels + config.labels - len(self.env.preferences)
        left = self._since.rounds + config.rounds - self.rounds
        count = -(-missing * rounds // left)
        recent, self._asked_at = steps - self._asked_at, steps
        if count < 1:
            return None
        rng = np.random.default_rng((config.seed, self.rounds))
        with self.clock("rater"):
            a, b = self.env.sample_pairs(count, rng, recent=recent if self.rounds else None)
            answers: Comparisons = self.env.compare(a, b)
        return answers

    def _prepared(self, comparisons: Comparisons) -> "_Material":
        """The comparisons as the policy reads them, with the anchor's log-probabilities."""
        recipe = self.config.recipe
        steps = max(comparisons.a.steps, comparisons.b.steps)
        a, b = (side.padded(steps) for side in (comparisons.a, comparisons.b))
        sides = {"a": a, "b": b}
        if recipe.loss == "kto":
            sides |= {f"mismatched_{name}": _mismatched(side) for name, side in sides.items()}
        if recipe.anchored and not self._anchors:
            with self.clock("policy"):
                self._anchors = {name: self._anchor(side) for name, side in sides.items()}
        return _Material(sides, self._anchors, comparisons.label, comparisons.weight)

    def _anchor(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """Log-probabilities of the policy that is to be kept near."""
        kept = self.config.anchor == "start"
        known = self.policy.reference_log_prob if kept else self.policy.log_prob
        rows = range(0, len(segments), self.config.batch_pairs)
        with torch.no_grad():
            parts = [
                known(segments.take(slice(one, one + self.config.batch_pairs))).cpu().numpy()
                for one in rows
            ]
        whole: np.ndarray = np.concatenate(parts)
        return whole

    def _pass(self, material: "_Material", most: int | None = None) -> dict[str, float]:
        """Gradient steps over all comparisons in a random order, at most so many."""
        pairs, size = len(material.label), self.config.batch_pairs
        order = np.random.default_rng((self.config.seed, self.gradient_steps, 1)).permutation(pairs)
        begins = range(0, pairs, size)[:most]
        with self.clock("policy"):
            told = [self._descend(material.take(order[one : one + size])) for one in begins]
        taken = [min(size, pairs - one) for one in begins]
        return {
            **{
                f"direct/{name}": float(np.average([one[name] for one in told], weights=taken))
                for name in told[0]
            },
            "direct/pairs": float(pairs),
            "direct/gradient_steps": float(self.gradient_steps),
        }

    def _descend(self, part: "_Material") -> dict[str, float]:
        """One gradient step on a minibatch."""
        recipe, pairs = self.config.recipe, len(part.label)
        seen: dict[str, float] = {}
        mismatched = self._mismatched_side(part)

        def loss(log_prob: torch.Tensor) -> torch.Tensor:
            label, weight = (torch.as_tensor(one).to(log_prob) for one in (part.label, part.weight))
            a, b = (
                part.side(name, log_prob[at * pairs : (at + 1) * pairs])
                for at, name in enumerate(("a", "b"))
            )
            seen.update(_compared(scores(recipe, a).detach(), scores(recipe, b).detach(), label))
            each = direct_loss(recipe, a, b, label, mismatched)
            return (each * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)

        told = self.policy.fit(loss, Segments.concatenate([part.sides["a"], part.sides["b"]]))
        self.gradient_steps += 1
        return told | seen

    def _mismatched_side(self, part: "_Material") -> Side | None:
        """KTO's: what the policy now says of actions in contexts that they were not chosen in."""
        names = [name for name in part.sides if name.startswith("mismatched")]
        if not names:
            return None
        with torch.no_grad():
            sides = [part.side(name, self.policy.log_prob(part.sides[name])) for name in names]
        return Side(*(torch.cat(column) for column in zip(*sides, strict=True)))

    def _check_labels(self) -> None:
        """Refuse labels of another meaning, actions that the loss cannot score, idle pairs."""
        wanted, data = self.config.meaning, self.data
        meaning = self.env.preferences.meaning if data is None else data.meaning
        if wanted is not None and meaning != wanted:
            raise ValueError(
                f"This loss reads a label as {wanted!r}, and these mean {meaning!r}, which would"
                f" mislead it: let a rater of {wanted} answer, or pass meaning=None where the two"
                " agree (segments that begin alike and run to the end of an episode)."
            )
        actions = self.env.single_action_space if data is None else data.a.actions
        if self.config.recipe.odds and np.dtype(actions.dtype).kind not in "iu":
            raise ValueError(
                "The odds of ORPO need discrete actions: probabilities of continuous ones are"
                " densities, and may exceed 1. Choose another preset."
            )

    def state(self) -> dict[str, Any]:
        """Where the schedule stands; for given comparisons the anchor's log-probabilities too."""
        return {
            "rounds": self.rounds,
            "gradient_steps": self.gradient_steps,
            "told": self.told,
            "asked_at": self._asked_at,
            "since": list(self._since),
            "anchors": self._anchors,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.rounds, self.gradient_steps = state["rounds"], state["gradient_steps"]
        self.told, self._asked_at = dict(state["told"]), state["asked_at"]
        self._anchors, self._material = dict(state["anchors"]), None
        self._since = _Since(*state["since"])


class _Since(NamedTuple):
    """Where the counters stood when the rounds were planned."""

    steps: int = 0
    rounds: int = 0
    labels: int = 0


class _Material(NamedTuple):
    """Pairs to learn from: ``sides`` and ``anchors`` by name, a row for every comparison."""

    sides: Mapping[str, Segments]
    anchors: Mapping[str, np.ndarray]
    label: np.ndarray
    weight: np.ndarray

    def take(self, rows: Int[np.ndarray, " rows"]) -> "_Material":
        """Some of the rows."""
        return _Material(
            {name: one.take(rows) for name, one in self.sides.items()},
            {name: one[rows] for name, one in self.anchors.items()},
            self.label[rows],
            self.weight[rows],
        )

    def side(self, name: str, log_prob: torch.Tensor) -> Side:
        """One side, given what the policy says of it."""
        mask = torch.as_tensor(self.sides[name].mask).to(log_prob.device)
        known = self.anchors.get(name)
        return Side(log_prob, mask, None if known is None else torch.as_tensor(known).to(log_prob))


def _changed(config: Config | str, changes: Mapping[str, Any]) -> Config:
    """The settings that are meant, those of the recipe among them.

    Raises:
        ValueError: a preset or a setting that does not exist.
    """
    if isinstance(config, str):
        config = lookup(config, PRESETS, "preset")
    unknown = [name for name in changes if name not in _OWN and name not in _RECIPES]
    if unknown:
        lookup(unknown[0], {**_OWN, **_RECIPES}, "setting of direct learning")
    own = {name: value for name, value in changes.items() if name in _OWN}
    loss = {name: value for name, value in changes.items() if name in _RECIPES}
    config = replace(config, **own)
    return replace(config, recipe=replace(config.recipe, **loss))


def _mismatched(segments: Segments) -> Segments:
    """The actions of each segment where the one before it was: what KTO's baseline is made of."""
    actions, mask = (np.roll(one, -1, axis=0) for one in (segments.actions, segments.mask))
    if segments.observations is not None:
        mask = mask & segments.mask
    return segments.replace(actions=actions, mask=mask)


def _compared(first: torch.Tensor, second: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    """How the scores of both sides compare with the labels."""
    lean = 2.0 * label - 1.0
    agreed = 0.5 + 0.5 * (first - second).sign() * lean.sign()
    decided = (lean != 0.0).to(agreed)
    accuracy = (agreed * decided).sum() / decided.sum() if decided.any() else torch.tensor(0.5)
    liked, other = torch.where(lean >= 0, first, second), torch.where(lean >= 0, second, first)
    return {
        "accuracy": float(accuracy),
        "margin": float((lean * (first - second)).mean()),
        "preferred": float(liked.mean()),
        "other": float(other.mean()),
    }
