"""Curation: closed forms on margins by hand, laws of order and direction, and what a fit makes."""

import inspect

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefgym.comparisons import Comparisons
from prefgym.curation import (
    Outcome,
    PeerSelection,
    Vote,
    always,
    applied,
    by_name,
    directed,
    drop_close,
    drop_inconsistent,
    drop_lowest,
    filter_quality,
    flip_lowest,
    lowest,
    outcome,
    soften,
    untouched,
    vote,
    with_margin,
)
from prefgym.losses import logistic
from prefgym.models.fit import Curated, adam, fit
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.segments import Segments

LOGITS = torch.tensor(
    [
        [3.0, 1.0, -4.0, 2.0, -1.0, 5.0],
        [1.0, 3.0, -2.0, 2.0, -1.0, -9.0],
    ]
)
LABEL = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 0.5])
MEAN = torch.tensor([2.0, -2.0, -3.0, -2.0, 1.0, 0.0])
"""μ of the pairs above; the last one is a tie."""
NOBODY = torch.Generator()


def given_labels() -> tuple[Curated, Vote]:
    return Curated(LABEL), vote(LOGITS, LABEL)


def comparisons(pairs: int, rng: np.random.Generator, **columns: np.ndarray) -> Comparisons:
    """Single steps of one number, the larger of which is better."""

    def side() -> Segments:
        seen = rng.normal(size=(pairs, 1, 1)).astype(np.float32)
        return Segments(
            actions=np.zeros((pairs, 1, 1), np.float32),
            mask=np.ones((pairs, 1), bool),
            context=seen[:, 0],
            context_id=np.zeros(pairs, np.int64),
            observations=seen,
        )

    a, b = side(), side()
    assert a.observations is not None
    assert b.observations is not None
    better = a.observations[:, 0, 0] > b.observations[:, 0, 0]
    return Comparisons(a, b, **{"label": better.astype(np.float64)} | columns)


def small(members: int = 2) -> RewardModel:
    box = spaces.Box(-np.inf, np.inf, (1,))
    return reward_model(box, box, members, (8,), seed=0)


TREATMENTS = {
    "flip": lambda curated, found: flip_lowest(curated, found, 0.4),
    "drop": lambda curated, found: drop_lowest(curated, found, 0.4),
    "soften": lambda curated, found: soften(curated, found, 0.2),
    "margin": with_margin,
    "flip, then margin": lambda curated, found: with_margin(
        flip_lowest(curated, found, 0.4), found
    ),
    "gold": lambda curated, found: drop_inconsistent(curated, LOGITS, 0.5, 0.9),
}


def rows(curated: Curated) -> Tensor:
    """Label, weight and offset of every pair, ``[3, pairs]``."""
    return torch.stack([torch.as_tensor(one).expand(len(curated.label)) for one in curated])


# --- the vote ---------------------------------------------------------------------------------


def test_a_vote_is_mean_and_deviation_in_the_direction_of_the_label() -> None:
    found = vote(LOGITS, LABEL)
    assert torch.equal(found.mean, MEAN)
    assert torch.equal(found.deviation, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    assert torch.equal(found.lean, torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 0.0]))


def test_soft_labels_vote_for_the_side_that_they_lean_to() -> None:
    hard, soft = (vote(LOGITS[:, :2], torch.tensor(label)) for label in ([1.0, 0.0], [0.6, 0.2]))
    assert torch.equal(hard.mean, soft.mean)


def test_logits_and_labels_have_to_fit() -> None:
    with pytest.raises(ValueError, match="6 pairs and 5 labels"):
        inspect.unwrap(directed)(LOGITS, LABEL[:5])  # the test run checks shapes by annotation
    with pytest.raises(ValueError, match="NaN or infinite"):
        vote(LOGITS / 0.0, LABEL)


@pytest.mark.parametrize(
    ("share", "where"),
    [(0.0, []), (0.2, [2]), (0.39, [2]), (0.4, [2]), (0.6, [1, 2, 3]), (1.0, [0, 1, 2, 3, 4])],
)
def test_the_lowest_are_a_share_of_the_decided_and_equal_ones_go_together(
    share: float, where: list[int]
) -> None:
    # At 0.4 two of five may go, but the second and the third lowest are equal.
    found = lowest(MEAN, share, LABEL != 0.5)
    if share < 1.0:
        assert found.nonzero().flatten().tolist() == where
    assert found.sum() <= share * 5 + (share == 1.0)


@given(
    pairs=st.integers(1, 40),
    share=st.floats(0.0, 1.0),
    members=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_the_lowest_are_exactly_the_share_where_no_two_are_equal(
    pairs: int, share: float, members: int, seed: int
) -> None:
    values = np.random.default_rng(seed).permuted(np.tile(np.arange(pairs), (members, 1)), axis=1)
    found = lowest(torch.from_numpy(values).float(), share)
    count = int(np.floor(share * pairs + 1e-9))
    assert (found.numpy() == (values < count)).all()


def test_shares_of_ten_are_counted_as_people_count() -> None:
    values = torch.arange(100.0)
    assert [int(lowest(values, share).sum()) for share in (0.29, 0.57, 0.7)] == [29, 57, 70]
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        lowest(values, 1.5)


# --- treatments -------------------------------------------------------------------------------


def test_flipping_and_dropping_concern_the_same_pairs() -> None:
    curated, found = given_labels()
    flipped, dropped = flip_lowest(curated, found, 0.6), drop_lowest(curated, found, 0.6)
    assert torch.equal(flipped.label, torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.5]))
    assert torch.equal(torch.as_tensor(dropped.weight), torch.tensor([1.0, 0, 0, 0, 1, 1]))
    assert dropped.label is curated.label


def test_softening_is_label_smoothing_where_the_mean_is_below() -> None:
    softened = soften(*given_labels(), flips=0.2)
    assert torch.allclose(softened.label, torch.tensor([1.0, 0.2, 0.8, 0.2, 0.0, 0.5]))
    all_of_them = soften(*given_labels(), flips=0.5, below=9.0)
    assert torch.equal(all_of_them.label, torch.full((6,), 0.5))
    with pytest.raises(ValueError, match=r"flips is 0.7"):
        soften(*given_labels(), flips=0.7)


def test_the_adaptive_margin_asks_the_preferred_side_to_win_by_the_mean() -> None:
    """The loss of the pair is softplus(−(d − μ)), d being the directed margin of the model."""
    curated, found = given_labels()
    offset = torch.as_tensor(with_margin(curated, found).offset)
    margin = torch.linspace(-2.0, 2.0, 6)
    decided = slice(0, 5)
    wanted = torch.nn.functional.softplus(-(directed(margin, LABEL) - MEAN))
    assert torch.allclose(logistic(margin - offset, LABEL)[decided], wanted[decided])
    assert offset[5] == 0.0


def test_a_flipped_pair_has_to_win_by_as_much_on_the_other_side() -> None:
    curated, found = given_labels()
    turned = with_margin(flip_lowest(curated, found, 0.2), found)
    assert turned.label[2] == 0.0
    margin = torch.tensor([-1.0])
    got = logistic(margin - torch.as_tensor(turned.offset)[2], turned.label[2:3])
    assert torch.allclose(got, torch.nn.functional.softplus(-(1.0 - torch.tensor([3.0]))))


def test_what_was_flipped_is_not_doubted_again() -> None:
    curated, found = given_labels()
    flipped = flip_lowest(curated, found, 0.2)
    softened = soften(flipped, found, 0.2)
    assert softened.label[2] == 0.0
    assert torch.allclose(softened.label[[1, 3]], torch.tensor([0.2, 0.2]))


@pytest.mark.parametrize("name", TREATMENTS)
def test_nothing_is_touched_where_all_agree(name: str) -> None:
    sure = torch.tensor([9.0, -9.0, 8.0, -7.0, -6.0, 5.0]).expand(2, -1)
    found = vote(sure, LABEL)
    treated = {
        "gold": lambda: drop_inconsistent(Curated(LABEL), sure, 0.5, 0.9),
        "soften": lambda: soften(Curated(LABEL), found),
        "flip": lambda: flip_lowest(Curated(LABEL), found, 0.0),
        "drop": lambda: drop_lowest(Curated(LABEL), found, 0.0),
    }
    if name in treated:
        assert torch.equal(rows(treated[name]()), rows(Curated(LABEL)))
    else:
        assert (rows(TREATMENTS[name](Curated(LABEL), found))[1] == 1.0).all()


@pytest.mark.parametrize("name", TREATMENTS)
def test_ties_are_left_alone(name: str) -> None:
    assert rows(TREATMENTS[name](*given_labels()))[:, 5].tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("name", [name for name in TREATMENTS if name != "gold"])
def test_the_order_of_the_pairs_does_not_matter(name: str) -> None:
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    here = rows(TREATMENTS[name](*given_labels()))[:, order]
    there = TREATMENTS[name](Curated(LABEL[order]), vote(LOGITS[:, order], LABEL[order]))
    assert torch.equal(here, rows(there))


@pytest.mark.parametrize("name", [name for name in TREATMENTS if name != "gold"])
def test_swapping_the_sides_turns_labels_and_offsets_round(name: str) -> None:
    label, weight, offset = rows(TREATMENTS[name](*given_labels()))
    swapped = TREATMENTS[name](Curated(1.0 - LABEL), vote(-LOGITS, 1.0 - LABEL))
    assert torch.allclose(rows(swapped), torch.stack([1.0 - label, weight, -offset]))


# --- peers ------------------------------------------------------------------------------------


def test_a_member_is_shown_what_the_next_one_believes() -> None:
    margins = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 2.0, 3.0], [3.0, 4.0, 1.0, 2.0]])
    label = torch.ones(4)
    peers = PeerSelection(0.25, 10, warm_up=0.0)
    weight = torch.as_tensor(peers(0, margins, label, NOBODY).weight)
    assert weight.tolist() == [[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]]
    alone = PeerSelection(0.25, 10, warm_up=0.0, own=True)
    own = torch.as_tensor(alone(0, margins, label, NOBODY).weight)
    assert own.tolist() == [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]]


def test_no_member_has_a_say_in_what_it_is_shown(rng: np.random.Generator) -> None:
    margins = torch.from_numpy(rng.normal(size=(4, 50)))
    label = torch.from_numpy(rng.integers(2, size=50).astype(np.float64))
    peers = PeerSelection(0.3, 1, warm_up=0.0)
    before = peers.dropped(margins, label)
    for member in range(4):
        other = margins.clone()
        other[member] = torch.from_numpy(rng.normal(size=50))
        same = (peers.dropped(other, label) == before).all(1)
        assert same.tolist() == [(member - 1) % 4 != one for one in range(4)]


def test_peers_commute_with_the_order_of_pairs_and_follow_the_swap(
    rng: np.random.Generator,
) -> None:
    margins = torch.from_numpy(rng.normal(size=(3, 40)))
    label = torch.from_numpy(rng.integers(3, size=40) / 2.0)
    peers = PeerSelection(0.3, 1, warm_up=0.0)
    dropped, order = peers.dropped(margins, label), torch.from_numpy(rng.permutation(40))
    assert torch.equal(peers.dropped(margins[:, order], label[order]), dropped[:, order])
    assert torch.equal(peers.dropped(-margins, 1.0 - label), dropped)
    assert not dropped[:, label == 0.5].any()
    assert (dropped.sum(1) == int(0.3 * (label != 0.5).sum())).all()


def test_nothing_is_left_out_before_the_warm_up_is_over_or_without_noise() -> None:
    peers = PeerSelection(0.6, 7, warm_up=0.3)
    left = [rows_kept(peers, epoch) for epoch in range(7)]
    assert left == [6, 6, 6, 3, 3, 3, 3]
    assert rows_kept(PeerSelection(0.0, 7, warm_up=0.0), 3) == 6


def as_given(epoch: int, margins: Tensor, label: Tensor, generator: torch.Generator) -> Curated:
    """The curator that does nothing."""
    return Curated(label)


def rows_kept(peers: PeerSelection, epoch: int) -> int:
    """Pairs that the first member is shown."""
    margins = torch.arange(12.0).view(2, 6)
    weight = torch.as_tensor(peers(epoch, margins, torch.ones(6), NOBODY).weight)
    return int((weight.expand(2, 6)[0] > 0).sum())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"noise": 1.0}, "noise is 1.0"),
        ({"warm_up": 1.5}, "warm_up 1.5"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_peers_refuse_what_cannot_be(settings: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PeerSelection(**{"noise": 0.2, "epochs": 5} | settings)  # type: ignore[arg-type]


def test_a_single_member_has_no_peer() -> None:
    with pytest.raises(ValueError, match="nobody to choose"):
        PeerSelection(0.5, 1, warm_up=0.0)(0, LOGITS[:1], LABEL, NOBODY)


# --- filters ----------------------------------------------------------------------------------


def test_a_gold_model_keeps_what_it_believes() -> None:
    logits = torch.logit(torch.tensor([[0.9, 0.6, 0.2, 0.45, 0.99]]))
    curated = Curated(torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5]))
    kept = torch.as_tensor(drop_inconsistent(curated, logits).weight)
    assert kept.tolist() == [1, 0, 0, 1, 1]
    strict = torch.as_tensor(drop_inconsistent(curated, logits, least=0.8).weight)
    assert strict.tolist() == [1, 0, 0, 0, 1]
    turned = drop_inconsistent(curated, logits, flip_from=0.7)
    assert torch.as_tensor(turned.weight).tolist() == [1, 0, 1, 1, 1]
    assert turned.label.tolist() == [1, 0, 0, 0, 0.5]


def test_the_confidence_is_that_of_the_mean_probability() -> None:
    # Mean logit above 0, but the mean probability is below ½.
    logits = torch.tensor([[9.0], [-2.0], [-2.0]])
    assert logits.mean() > 0
    kept = drop_inconsistent(Curated(torch.ones(1)), logits).weight
    assert torch.as_tensor(kept).tolist() == [0.0]


def test_a_label_is_not_both_kept_and_flipped() -> None:
    with pytest.raises(ValueError, match=r"above 1 − least = 0\.5"):
        drop_inconsistent(Curated(LABEL), LOGITS, 0.5, 0.5)
    with pytest.raises(ValueError, match="least is 2"):
        drop_inconsistent(Curated(LABEL), LOGITS, 2.0)


def test_close_pairs_are_dropped_and_so_they_stay() -> None:
    gap = torch.tensor([0.5, -1.0, 2.0, -0.9, 1.0, 0.0])
    curated = drop_close(Curated(LABEL), gap, 1.0)
    assert torch.as_tensor(curated.weight).tolist() == [0, 1, 1, 0, 1, 0]
    both = drop_lowest(curated, vote(LOGITS, LABEL), 0.2)
    assert torch.as_tensor(both.weight).tolist() == [0, 1, 0, 0, 1, 0]
    assert torch.as_tensor(drop_close(both, -gap, 0.0).weight).tolist() == [0, 1, 0, 0, 1, 0]


def test_the_closest_share_is_left_out_by_name() -> None:
    close = by_name.TREATMENTS["close"]
    curated, found = given_labels()
    assert rows(close(curated, found, 0.2))[1].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    assert (rows(close(curated, found, 0.0))[1] == 1.0).all()
    label, weight, offset = rows(close(curated, found, 1.0))
    assert weight.tolist() == [0.0] * 5 + [1.0]  # ties say that two are close, and stay
    assert torch.equal(label, LABEL)
    assert not offset.any()


def test_a_gold_model_looks_over_all_but_what_it_was_made_of(rng: np.random.Generator) -> None:
    class Contrary:
        def logits(self, a: Segments, b: Segments) -> Tensor:
            return (4.0 - 8.0 * untouched(known).label)[None]

    known = comparisons(6, rng)
    curate = by_name.curator("gold", 0.2, 1, known, None, Contrary(), trusted=2)
    assert curate is not None
    weight = rows(curate(0, torch.zeros(1, 6), untouched(known).label, NOBODY))[1]
    assert weight.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="give a learner trusted comparisons as data="):
        by_name.curator("gold", 0.2, 1, known, None)


def test_gaps_have_to_be_known(rng: np.random.Generator) -> None:
    data = comparisons(4, rng)
    with pytest.raises(ValueError, match="4 of 4 gaps are NaN"):
        drop_close(untouched(data), torch.from_numpy(data.strength), 1.0)
    with pytest.raises(ValueError, match="3 gaps for 4 labels"):
        drop_close(untouched(data), torch.ones(3), 1.0)


# --- what becomes of it -----------------------------------------------------------------------


def test_outcomes_count_what_was_done() -> None:
    curated, found = given_labels()
    assert outcome(curated, LABEL) == Outcome(1.0, 0.0, 0.0)
    assert outcome(flip_lowest(curated, found, 0.6), LABEL) == Outcome(1.0, 0.5, 0.0)
    assert outcome(drop_lowest(curated, found, 0.6), LABEL) == Outcome(0.5, 0.0, 0.0)
    assert outcome(soften(curated, found), LABEL) == Outcome(1.0, 0.0, 0.5)
    members = Curated(LABEL, torch.tensor([[1.0] * 6, [0.0] * 6]))
    assert outcome(members, LABEL).kept == 0.5


def test_precision_and_recall_of_a_filter() -> None:
    suspected = np.array([True, True, True, True, False, False, False, False])
    flipped = np.array([True, True, True, False, True, True, False, False])
    assert filter_quality(suspected, flipped) == (0.75, 0.6, 0.5)
    nobody = filter_quality(~np.ones(3, bool), np.zeros(3, bool))
    assert np.isnan(nobody.precision)
    assert np.isnan(nobody.recall)
    assert nobody.noise_kept == 0.0


def test_comparisons_are_made_of_what_is_kept(rng: np.random.Generator) -> None:
    data = comparisons(6, rng, label=LABEL.double().numpy(), weight=np.arange(6.0))
    same = applied(data, untouched(data))
    assert np.array_equal(same.label, data.label)
    assert np.array_equal(same.weight[1:], data.weight[1:])
    found = vote(LOGITS, untouched(data).label)
    treated = applied(data, drop_lowest(flip_lowest(untouched(data), found, 0.2), found, 0.4))
    assert treated.label.tolist() == [1.0, 0.0, 0.0, 0.5]
    assert treated.weight.tolist() == [0.0, 2.0, 4.0, 5.0]
    assert np.array_equal(treated.a.actions, data.a.actions[[0, 2, 4, 5]])


def test_comparisons_hold_no_offset_and_no_members(rng: np.random.Generator) -> None:
    data, found = comparisons(6, rng), vote(LOGITS, LABEL)
    with pytest.raises(ValueError, match="cannot hold"):
        applied(data, with_margin(untouched(data), found))
    with pytest.raises(ValueError, match=r"shape \(2, 6\) for 6"):
        applied(data, Curated(LABEL, torch.ones(2, 6)))


def test_a_fit_to_curated_labels_is_a_fit_to_those_labels(rng: np.random.Generator) -> None:
    data = comparisons(60, rng)
    wrong = data.replace(label=np.where(np.arange(60) < 20, 1.0 - data.label, data.label))
    first, second = small(), small()
    curated = untouched(data)
    # The second is given a curator too, so that as many numbers are drawn.
    for model, given_to, curate in ((first, wrong, always(curated)), (second, data, as_given)):
        draws = np.random.default_rng(3)
        fit(model, given_to, adam(model, 1e-2), draws, 5, 16, curate=curate)
    for here, there in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(here, there)


def test_pairs_that_are_left_out_have_no_influence(rng: np.random.Generator) -> None:
    data = comparisons(40, rng)
    left_out = np.arange(40) < 10
    weight = torch.from_numpy((~left_out).astype(np.float32))
    models = []
    for label in (data.label.copy(), np.where(left_out, 1.0 - data.label, data.label)):
        model = small()
        curated = Curated(torch.from_numpy(label), weight)
        draws = np.random.default_rng(3)
        fit(model, data, adam(model, 1e-2), draws, 3, 8, curate=always(curated))
        models.append(model)
    for here, there in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(here, there)


def test_what_was_curated_has_to_be_what_is_fitted(rng: np.random.Generator) -> None:
    data, model = comparisons(40, rng), small()
    curate = always(untouched(data))
    with pytest.raises(ValueError, match="40 pairs were curated, and the fit is to 30"):
        fit(model, data.take(slice(30)), adam(model), rng, 1, curate=curate)


def test_a_vote_finds_planted_flips_and_flipping_mends_the_model(
    rng: np.random.Generator,
) -> None:
    data = comparisons(400, rng)
    wrong = rng.random(400) < 0.2
    noisy = data.replace(label=np.where(wrong, 1.0 - data.label, data.label))
    voters = small(4)
    fit(voters, noisy, adam(voters, 1e-2), rng, 2, 32)
    given_to = untouched(noisy)
    found = vote(voters.logits(noisy.a, noisy.b), given_to.label)
    quality = filter_quality(lowest(found.mean, 0.2).numpy(), wrong)
    assert quality.precision > 0.7
    mended = applied(noisy, flip_lowest(given_to, found, 0.2))
    assert (mended.label != data.label).mean() < 0.5 * wrong.mean()


def test_two_peers_fit_noisy_labels(rng: np.random.Generator) -> None:
    data = comparisons(300, rng)
    wrong = rng.random(300) < 0.3
    noisy = data.replace(label=np.where(wrong, 1.0 - data.label, data.label))
    model, peers = small(), PeerSelection(0.3, 20)
    fit(model, noisy, adam(model, 1e-2), rng, 20, 32, stop_accuracy=1.0, curate=peers)
    dropped = peers.dropped(model.logits(noisy.a, noisy.b), untouched(noisy).label.float())
    for member in dropped:
        assert filter_quality(member.numpy(), wrong).recall > 0.7
