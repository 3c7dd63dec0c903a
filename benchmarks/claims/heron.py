"""An order of factors with coarse margins does what weights do, whatever the factors' units.

Source: Bukharin et al. (2023), HERON, arXiv:2309.02632.

Pendulum has three factors: the squared angle matters most, then the squared speed, then the squared
torque. A reward model is fitted to 20,000 pairs of single steps of random play, judged by that
hierarchy with margins of half a standard deviation, and planned with; three data sets per seed. So
are the true reward (weights 1, 0.1, 0.001) and what somebody gets who adds the factors up as they
come. Then the factors are measured in other units, times 1, 10 and 1000: the labels of the
hierarchy stay what they were, and the sum becomes another reward. See ``heron_pendulum`` for the
planner, which leaves nothing to chance but the data. In the last row (not in the quick part) the
learner trains SAC in turns with its reward for 6,000 steps; told is the share of the gap between
random actions and planning with the true reward that it closes.

Traffic (not in the quick part): five agents per seed set the lights of one intersection, trained by
PPO for 40,000 steps with HERON's reward, queues over waiting over the rest, or with a fixed sum of
the same six signals. The rule for the sum was settled before any was trained: equal say, each
factor divided by its deviation under random lights, signs known. Beside it stand the weights that
IntelliLight published, its units left aside, and the true ones. HERON should do at least as well in
four of five agents. **It does not.** The sum of equal say is ahead of it in all of five agents, by
about 2 %, and the published weights are by less than 1 %; the order reversed does no worse either.
HERON is level with max pressure, far ahead of every fixed timing, and ahead of PPO on the true
reward after as many steps. Six signals of the same queues agree about what is good, so that neither
their order nor their weights matter much here. The row says so, and two others hold HERON to what
it does reach.

Text (not in the quick part): two tiny language models per seed learn to answer rightly, politely
and briefly from that order of three factors (``heron_text.py``). They come to 0.8 of the exact
optimum, as agents of the true reward do with a pull to their start that was tried for them. Neither
learns to be brief: politeness makes responses longer, the pull is to wordy demonstrations, and two
words fewer are worth 0.06.

Controls: on Pendulum the same with the order reversed must be clearly worse; and adding up is fine
as long as the units happen to suit, so that what fails is the units and not the sum. In traffic a
hierarchy of nothing but calm must be clearly worse. On text so must the order reversed, whose best
answer is to say nothing, and a hierarchy that is turned round half of the time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.claims import heron_text
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.heron_pendulum import (
    ENV,
    ORDER,
    REVERSED,
    Judged,
    judged,
    learned,
    random_pairs,
    rescaled,
    trained_return,
    true_return,
    weighted,
)
from benchmarks.claims.heron_traffic import (
    IRRELEVANT,
    best_timing,
    by_hierarchy,
    by_weights,
    max_pressure,
    random_lights,
    rules,
    written,
)
from benchmarks.claims.heron_traffic import ORDER as SIGNALS
from benchmarks.claims.heron_traffic import REVERSED as SIGNALS_REVERSED
from benchmarks.claims.training import random_return

KEY = "heron"
CLAIM = (
    "From a ranking of factors alone an agent does as well as from the true weights, and factors "
    "in other units change nothing, while a weighted sum in the wrong units fails."
)
MARGIN = 0.5
PAIRS, QUICK_PAIRS = 20_000, 5_000
DATA, QUICK_DATA = 3, 1
"""Data sets per seed."""
EPOCHS, HIDDEN = 5, (64, 64)
STEPS = 6_000
"""Environment steps of the learner, and gradient steps of SAC."""
AGENTS, TRAFFIC_STEPS = 5, 40_000
"""Agents per seed that set traffic lights, and environment steps of each."""
SPEAKERS = 2
"""Language models per seed."""
TRUE_WEIGHTS = (1.0, 0.1, 0.001)
UNITS = (1.0, 10.0, 1000.0)
ONE_UNIT_OFF = ((1.0, 10.0, 1.0), (1.0, 1.0, 1000.0))
"""Units in which a single factor came out too large."""


class Section(NamedTuple):
    """What one experiment adds to the claim."""

    rows: list[Row]
    controls: list[Row]
    figures: dict[str, float]


def run(seed: int, quick: bool) -> ClaimResult:
    """Every experiment of the claim."""
    torch.set_num_threads(1)
    sections = [pendulum(seed, quick)]
    if not quick:
        sections.append(trained(seed, sections[0].figures["pendulum_true"]))
        sections.append(traffic(seed))
        sections.append(text(seed))
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[row for one in sections for row in one.rows],
        controls=[row for one in sections for row in one.controls],
        figures={name: value for one in sections for name, value in one.figures.items()},
    )


class Told(NamedTuple):
    """One data set."""

    plain: float
    """True return of planning with HERON's reward."""
    rescaled: float
    """The same, the factors in other units."""
    reversed: float
    """The same, the order reversed."""
    changed: float
    """Share of labels that other units change."""
    silent: float
    """Share of the pairs that no factor decides."""


def pendulum(seed: int, quick: bool) -> Section:
    """Planning with learned, true and written rewards."""
    pairs, count = (QUICK_PAIRS, QUICK_DATA) if quick else (PAIRS, DATA)
    told = [data_set(pairs, DATA * seed + k) for k in range(count)]
    mean = {name: float(np.mean([getattr(one, name) for one in told])) for name in Told._fields}
    true = true_return(weighted(TRUE_WEIGHTS))
    summed = true_return(weighted((1.0, 1.0, 1.0)))
    units = [true_return(weighted(scales)) for scales in ONE_UNIT_OFF]
    worst = max(abs(one.plain - one.rescaled) for one in told)
    return Section(
        rows=[
            Row("Pendulum: cost by HERON / by true weights", mean["plain"] / true, "<=", 1.1),
            Row("the same, factors in other units", mean["rescaled"] / true, "<=", 1.1),
            Row("labels that other units change, share", mean["changed"], "==", 0.0),
            Row("change of return in other units, largest", worst, "<=", 0.02 * abs(true)),
            Row("cost by a sum in wrong units / by true w.", max(units) / true, ">=", 2.0),
        ],
        controls=[
            Row("cost by the order reversed / by true w.", mean["reversed"] / true, ">=", 1.5),
            Row("cost by a sum in units that suit / by true w.", summed / true, "<=", 1.1),
        ],
        figures={
            "pendulum_true": true,
            "pendulum_heron": mean["plain"],
            "pendulum_heron_other_units": mean["rescaled"],
            "pendulum_reversed": mean["reversed"],
            "pendulum_sum": summed,
            "pendulum_sum_second_x10": units[0],
            "pendulum_sum_third_x1000": units[1],
            "pendulum_undecided": mean["silent"],
        },
    )


def trained(seed: int, true: float) -> Section:
    """The learner on the same task, its policy trained in turns with its reward."""
    reached = trained_return(STEPS, seed)
    floor = random_return(ENV)
    share = (reached - floor) / (true - floor)
    return Section(
        rows=[Row("the learner with SAC: share of the gap closed", share, ">=", 0.9)],
        controls=[],
        figures={"pendulum_learner": reached, "pendulum_random": floor},
    )


def traffic(seed: int) -> Section:
    """Minutes of travel at one intersection, by a hierarchy of signals and by sums of them."""
    agents = range(AGENTS * seed, AGENTS * (seed + 1))
    first, seen = agents[0], random_lights()
    heron = np.array([by_hierarchy(SIGNALS, MARGIN, TRAFFIC_STEPS, k) for k in agents])
    summed = {
        rule: np.array([by_weights(written(weights, seen), TRAFFIC_STEPS, k) for k in agents])
        for rule, weights in rules(seen).items()
    }
    backwards = by_hierarchy(SIGNALS_REVERSED, MARGIN, TRAFFIC_STEPS, first)
    calm = by_hierarchy(IRRELEVANT, MARGIN, TRAFFIC_STEPS, first)
    as_good = {rule: float((heron <= found).sum()) for rule, found in summed.items()}
    mean = {rule: float(found.mean()) for rule, found in summed.items()}
    ours, timing, pressure = float(heron.mean()), best_timing(), max_pressure()
    return Section(
        rows=[
            Row("Traffic: agents of 5, HERON >= equal say", as_good["equal_say"], ">=", 4.0),
            Row("minutes by HERON / by equal say", ours / mean["equal_say"], "<=", 1.1),
            Row("minutes by HERON / by the best fixed timing", ours / timing, "<=", 0.7),
        ],
        controls=[Row("minutes by calm alone / by HERON", calm / ours, ">=", 1.3)],
        figures={
            "traffic_heron": ours,
            **{f"traffic_{rule}": value for rule, value in mean.items()},
            **{f"traffic_agents_vs_{rule}": count for rule, count in as_good.items()},
            "traffic_reversed_first_agent": backwards,
            "traffic_heron_first_agent": float(heron[0]),
            "traffic_calm": calm,
            "traffic_fixed_time": timing,
            "traffic_max_pressure": pressure,
        },
    )


def text(seed: int) -> Section:
    """True returns of responses by a hierarchy, over the exact optimum's."""
    seeds = [SPEAKERS * seed + k for k in range(SPEAKERS)]
    told = [heron_text.answered(one, controls=one == seeds[0]) for one in seeds]
    mean = {name: float(np.mean([getattr(one, name) for one in told])) for name in told[0]._fields}
    ours, best, first = mean["heron"], mean["best"], told[0]
    return Section(
        rows=[
            Row("text: return by HERON / the exact optimum", ours / best, ">=", 0.75),
            Row("text: the same / by the true reward", ours / mean["true_reward"], ">=", 0.9),
        ],
        controls=[
            Row("text: by a coin / the exact optimum", first.coin / best, "<=", 0.4),
            Row("text: by the order reversed / the optimum", first.reversed / best, "<=", 0.1),
        ],
        figures={
            "text_heron": ours,
            "text_true_reward": mean["true_reward"],
            "text_start": mean["start"],
            "text_optimum": best,
            "text_coin_first_agent": first.coin,
            "text_reversed_first_agent": first.reversed,
        },
    )


def data_set(pairs: int, seed: int) -> Told:
    """Rewards learned from one set of pairs, planned with."""
    a, b = random_pairs(pairs, seed)
    a_units, b_units = (rescaled(side, UNITS) for side in (a, b))
    plain, other = judged(a, b, ORDER, MARGIN), judged(a_units, b_units, ORDER, MARGIN)
    backwards = judged(a, b, REVERSED, MARGIN)

    def planned(one: Judged, scales: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
        return true_return(learned(one.answers, scales, seed, EPOCHS, HIDDEN))

    return Told(
        plain=planned(plain),
        rescaled=planned(other, UNITS),
        reversed=planned(backwards),
        changed=float(np.mean(plain.label != other.label)),
        silent=plain.shares["undecided"],
    )
