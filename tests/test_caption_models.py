"""Reward models of captions: what they learn, what they ask, and that they can be resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefgym import checkpoints
from prefgym.annotation import CaptionLabels, Inline, PairLabels
from prefgym.judges import RuleJudge
from prefgym.models.caption_models import (
    CharactersEncoder,
    Classification,
    Online,
    Ranking,
    Retrieval,
    Supply,
    encoders,
)
from prefgym.raters.language import LanguageRater

HELPS = {
    "You pick up the yellow key.": 1.0,
    "You drop the yellow key.": 0.0,
    "You open the yellow door.": 1.0,
    "You close the yellow door.": 0.0,
    "You bump into a wall.": 0.0,
    "You see a ball.": 0.0,
}
CAPTIONS = list(HELPS)
JUDGED = CaptionLabels(CAPTIONS, np.array(list(HELPS.values())))


def pairs(value: dict[str, float]) -> PairLabels:
    """All pairs, compared by a value."""
    both = [(a, b) for i, a in enumerate(value) for b in list(value)[i + 1 :]]
    label = [0.5 + 0.5 * np.sign(value[a] - value[b]) for a, b in both]
    return PairLabels([a for a, _ in both], [b for _, b in both], np.array(label))


COMPARED = pairs(HELPS)
NOTHING = {"helpful": CaptionLabels([], np.zeros(0)), "ranking": PairLabels([], [], np.zeros(0))}
MODELS: dict[str, Callable[..., Any]] = {
    "retrieval": lambda **_: Retrieval(),
    "classification": Classification,
    "ranking": Ranking,
}


def taught(model: Any, updates: int = 1, seen: list[str] = CAPTIONS) -> Any:
    for update in range(updates):
        labels = JUDGED if model.kind == "helpful" else COMPARED
        model.learn(labels if not update else NOTHING[model.kind], seen, 32)
    return model


# --- one face ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_rewarded_before_a_label_nor_for_silence(name: str) -> None:
    model = MODELS[name]()
    assert not model.rewards([*CAPTIONS, ""]).any()
    assert not model.learn(NOTHING[model.kind], CAPTIONS).get("loss")
    assert not model.rewards(CAPTIONS).any()
    rewards = taught(model).rewards([*CAPTIONS, "", " "])
    assert rewards.dtype == np.float64
    assert rewards.any()
    assert not rewards[-2:].any()
    assert model.rewards([]).shape == (0,)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_no_label_is_not_learned(name: str) -> None:
    model = MODELS[name]()
    if model.kind == "helpful":
        labels: Any = CaptionLabels(["", "a key", "a wall"], np.array([1.0, np.nan, 0.0]))
        left = 1.0
    else:
        labels = PairLabels(["", "a key", "a"], ["a", "a wall", " "], np.array([1.0, np.nan, 1.0]))
        left = 0.0
    assert model.learn(labels)["labels"] == left
    assert "a key" in str(model.wants(["a key", "b", "c"] * 50))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_on_from_its_state_and_touches_no_other_random_numbers(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    straight = taught(MODELS[name](seed=3))
    straight.wants(CAPTIONS * 9, 0)
    checkpoints.save(tmp_path / "model", straight.get_state())
    resumed = MODELS[name](seed=4)
    resumed.set_state(checkpoints.load(tmp_path / "model"))
    more: Any = CaptionLabels(["You win."], np.array([1.0]))
    if straight.kind == "ranking":
        more = PairLabels(["You win."], [CAPTIONS[0]], np.array([1.0]))
    assert straight.learn(more, CAPTIONS) == resumed.learn(more, CAPTIONS)
    assert straight.wants(CAPTIONS * 9 + ["x"]) == resumed.wants(CAPTIONS * 9 + ["x"])
    known = [*CAPTIONS, "You win.", "x"]
    assert np.array_equal(straight.rewards(known), resumed.rewards(known))
    assert torch.equal(torch.get_rng_state(), before)


def told_of(numbers: range) -> PairLabels:
    """Comparisons of captions with a word of their own: the higher number is better."""
    return pairs({f"You see item{number}.": float(number) for number in numbers})


def test_a_table_of_words_that_grows_learns_as_one_that_had_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def learned(fewest: int, kept: bool = False) -> tuple[Ranking, np.ndarray]:
        monkeypatch.setattr(encoders, "_FEWEST_WORDS", fewest)
        model = Ranking(seed=1)
        model.learn(told_of(range(6)), [], 8)
        if kept:
            checkpoints.save(tmp_path / "model", model.get_state())
            model = taught(Ranking(seed=2))  # of another size by now
            model.set_state(checkpoints.load(tmp_path / "model"))
        model.learn(told_of(range(20, 34)), [], 8)
        known = [f"You see item{number}." for number in range(40)]
        return model, model.raw(known)

    model, roomy = learned(64)
    grown, small = learned(4)
    sizes = [len(one._scores.network.vectors) for one in (model, grown)]
    assert sizes == [65, 33]
    np.testing.assert_allclose(small, roomy, atol=1e-6)
    assert np.array_equal(learned(4, kept=True)[1], small)


# --- judged one by one ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retrieval", "classification"])
def test_captions_that_help_are_rewarded(name: str) -> None:
    model = taught(MODELS[name]())
    assert model.rewards(CAPTIONS).tolist() == list(HELPS.values())
    assert model.wants(["b", CAPTIONS[0], "", "a", "b", "c", "a"]) == ["b", "c", "a"]


def test_a_table_knows_nothing_of_other_captions_and_a_classifier_may() -> None:
    new = ["You pick up the blue key.", "You bump into a box."]
    assert taught(Retrieval()).rewards(new).tolist() == [0.0, 0.0]
    assert taught(Classification()).rewards(new).tolist() == [1.0, 0.0]


def test_a_classifier_learns_what_no_sum_over_words_tells() -> None:
    captions = ["red ball", "blue ball", "red box", "blue box"]
    model = Classification()
    model.learn(CaptionLabels(captions, np.array([1.0, 0.0, 0.0, 1.0])), (), 100)
    assert model.rewards(captions).tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_classifier_that_says_no_to_everything_shows() -> None:
    rare = CaptionLabels([f"w{i}" for i in range(50)], np.eye(50)[0])
    metrics = Classification(threshold=1.0).learn(rare)
    assert (metrics["positive_labels"], metrics["predicted_positive"]) == (0.02, 0.0)
    metrics = Classification(threshold=0.0).learn(rare)
    assert metrics["predicted_positive"] == 1.0


def test_the_schedule_of_gradient_steps() -> None:
    online = Online(steps=3, until=6, later_steps=1, batch=4)
    model = Classification(online=online)
    part = CaptionLabels(CAPTIONS[:5], JUDGED.label[:5])
    assert model.learn(NOTHING["helpful"])["gradient_steps"] == 0
    assert model.learn(part)["gradient_steps"] == 3
    assert model.learn(NOTHING["helpful"])["gradient_steps"] == 0
    last = CaptionLabels(CAPTIONS[5:], JUDGED.label[5:])
    assert model.learn(last)["gradient_steps"] == 1
    assert model.learn(NOTHING["helpful"])["gradient_steps"] == 1
    assert model.learn(NOTHING["helpful"], (), 7)["gradient_steps"] == 7


def test_characters_tell_captions_apart() -> None:
    online = Online(learning_rate=1e-3, batch=16)
    model = Classification(encoder="characters", online=online, seed=1)
    labels = CaptionLabels(CAPTIONS[:2], JUDGED.label[:2])
    first = model.learn(labels, (), 1)["loss"]
    assert model.learn(NOTHING["helpful"], (), 40)["loss"] < first
    assert model.rewards(CAPTIONS[:2]).tolist() == [1.0, 0.0]
    network = CharactersEncoder(torch.Generator().manual_seed(0))
    row = network.rows(["é" * 300])
    assert row.shape == (1, 256)
    assert [one.shape[0] for one in network.kernels] == [64] * 6
    assert torch.equal(network(row), network(row))  # no dropout unless a generator is given
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(network(row, generator), network(row, generator))
    with pytest.raises(ValueError, match=r"longest is 122; wanted 123 or more"):
        CharactersEncoder(torch.Generator(), longest=122)
    CharactersEncoder(torch.Generator(), longest=123)


# --- compared ---------------------------------------------------------------------------------


def test_ranking_orders_captions_and_mirrored_labels_teach_the_same() -> None:
    value = dict(zip(CAPTIONS, [3.0, 1.0, 2.0, 1.0, 0.0, 0.0], strict=True))
    labels = pairs(value)
    model, mirrored = Ranking(normalise="published"), Ranking(normalise="published")
    model.learn(labels, (), 100)
    mirrored.learn(PairLabels(labels.second, labels.first, 1.0 - labels.label), (), 100)
    reward = model.rewards(CAPTIONS)
    true = np.array([*value.values()])
    better = true[:, None] > true
    assert (reward[:, None] > reward)[better].all()
    gaps = reward - reward.mean()
    other = mirrored.rewards(CAPTIONS)
    assert np.corrcoef(gaps, other - other.mean())[0, 1] > 0.99


def test_normalisation_and_threshold_are_applied() -> None:
    seen = CAPTIONS[:1] + CAPTIONS[4:5] * 3 + [""] * 50
    model = taught(Ranking(), seen=seen)
    raw = model.raw(CAPTIONS)
    stream = raw[[0, 4, 4, 4]]
    scaled = (raw - stream.mean()) / stream.std()
    wanted = np.where(scaled >= -0.5, scaled, 0.0)
    np.testing.assert_allclose(model.rewards(CAPTIONS), wanted, rtol=1e-6)
    assert (model.rewards(CAPTIONS) == 0.0).any()
    published = taught(Ranking(normalise="published"), seen=seen)
    assert published.rewards(CAPTIONS).tolist() == raw.tolist()


def test_half_of_the_captions_are_kept_as_in_motif() -> None:
    model = taught(Ranking(normalise="unique", online=Online(learning_rate=3e-3)), seen=[])
    raw, rewards = model.raw(CAPTIONS), model.rewards(CAPTIONS)
    assert (rewards != 0.0).tolist() == (raw >= np.median(raw)).tolist()
    np.testing.assert_allclose(rewards[0], (raw[0] - raw.mean()) / raw.std(), rtol=1e-6)


def test_running_moments_are_those_of_all_that_was_seen() -> None:
    model = taught(Ranking())
    begun = model.get_state()["running"]
    parts = [CAPTIONS[:2] * 3, CAPTIONS[2:], [""]]
    for part in parts:
        model.learn(NOTHING["ranking"], part)
    whole = Ranking()
    whole.set_state({**model.get_state(), "running": begun})
    whole.learn(NOTHING["ranking"], parts[0] + parts[1])
    once, thrice = whole.get_state()["running"], model.get_state()["running"]
    np.testing.assert_allclose(once, thrice, rtol=1e-5)  # scores are of single precision
    raw = model.raw(CAPTIONS + parts[0] + parts[1])
    count, mean, squares = model.get_state()["running"]
    np.testing.assert_allclose([mean, squares / count], [raw.mean(), raw.var()], rtol=1e-5)


def test_pairs_are_drawn_of_every_tenth_caption_while_few_wait() -> None:
    stream = [f"c{i}" if i % 2 else "" for i in range(400)]
    model = Ranking(supply=Supply(pairs=5, enough=20))
    assert model.wants(stream[:130], waiting=20) == []
    asked = model.wants(stream[130:], waiting=19)
    assert len(asked) == 5
    assert {one for pair in asked for one in pair} <= {f"c{1 + 20 * i}" for i in range(20)}
    assert len({frozenset(pair) for pair in asked}) == 5
    few = Ranking(supply=Supply(keep_every=1))
    assert few.wants(["a"] * 5) == []
    assert [{*pair} for pair in few.wants(["a", "b"])] == [{"a", "b"}]
    few.learn(PairLabels(["b"], ["a"], np.ones(1)))
    assert few.wants(["a", "b"]) == []


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown normalisation 'runing'; did you mean 'running'"):
        Ranking(normalise="runing")
    with pytest.raises(ValueError, match=r"Unknown encoder of captions 'char'"):
        Classification(encoder="char")
    with pytest.raises(ValueError, match=r"wanted a batch of 1 or more"):
        Online(batch=0)


# --- with a judge -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_models_and_annotator_fit_each_other(name: str) -> None:
    model = MODELS[name]()
    rater = LanguageRater(RuleJudge(), "open the yellow door")
    annotator = Inline(rater, model.kind, batch=4, every=2)
    rng = np.random.default_rng(0)
    for _ in range(30):
        seen = rng.choice([*CAPTIONS, ""], 40).tolist()
        wanted = model.wants(seen, annotator.counts()["waiting"])
        (annotator.offer if model.kind == "helpful" else annotator.offer_pairs)(wanted)
        model.learn(annotator.labels(), seen)
    counts = annotator.counts()
    assert counts["labelled"] == counts["asked"] == (6 if model.kind == "helpful" else 15)
    rewards = model.rewards(CAPTIONS)
    assert rewards[:1] > rewards[4:].max()  # the key beats the wall
    assert model.wants(CAPTIONS * 20) == []
