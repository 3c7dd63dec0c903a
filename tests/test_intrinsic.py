"""Intrinsic rewards of captions: what steps earn, who is listened to, what is said of faults."""

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from benchmarks.claims import leak
from prefgym.annotation import Annotator, Inline
from prefgym.captions import CAPTION
from prefgym.judges import RuleJudge
from prefgym.raters.language import LanguageRater
from prefgym_agents.intrinsic import Intrinsic
from prefgym_agents.sb3 import sb3_backend

GRID, GOAL = "prefgym/DoorKey-5x5-v0", "open the door"
HELPFUL = {"You pick up the key.", "You unlock the door.", "You open the door."}


class Always:
    """A judge who says the same to everything; None: nothing."""

    name = "always"

    def __init__(self, answer: str | None) -> None:
        self.answer = answer

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        return [self.answer] * len(prompts)


def rater(goal: str = GOAL) -> LanguageRater:
    """What an annotator calls in its process."""
    return LanguageRater(RuleJudge(), goal)


def annotator(kind: str = "helpful", judge: Any = None, **settings: Any) -> Inline:
    return Inline(LanguageRater(judge or RuleJudge(), GOAL), kind, **settings)


def backend(algorithm: str = "PPO", seed: int = 0, capacity: int = 4_000, **settings: Any) -> Any:
    env = gym.make_vec(GRID, num_envs=4, counts=4, query_every=None, capacity=capacity)
    chosen: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 2}
    if algorithm == "DQN":
        chosen = {"learning_starts": 64, "batch_size": 16, "train_freq": 16, "gradient_steps": 1}
    small = {"net_arch": [16]}
    return sb3_backend(algorithm, env, seed=seed, policy_kwargs=small, **chosen, **settings)


def learner(preset: str = "retrieval", seed: int = 0, **settings: Any) -> Intrinsic:
    kind = "ranking" if preset in ("ranking", "motif") else "helpful"
    return Intrinsic(backend(seed=seed), annotator(kind), preset, **settings)


def everything(one: Intrinsic) -> Any:
    """All steps that are in the store, by pieces that begin in the middle of episodes."""
    index = one.store.since(np.zeros(one.store.lanes, np.int64), 7)
    return one.store.segments(index, 7)


# -- what steps earn ---------------------------------------------------------------------------


def test_rewards_are_those_of_a_naive_loop_over_episodes() -> None:
    made = learner(extrinsic=2.0, intrinsic=0.5).learn(1_536)
    pieces = everything(made)
    assert (pieces.start > 0).any()
    times, met = np.ones(pieces.mask.shape), Counter[tuple[int, str]]()
    said = np.full(pieces.mask.shape, "", object)
    for piece in np.lexsort((pieces.start, pieces.episode)):
        for step in range(int(pieces.mask[piece].sum())):
            (text,) = made.captions.texts([pieces.factors[CAPTION][piece, step]])
            met[int(pieces.episode[piece]), text] += 1
            said[piece, step], times[piece, step] = text, met[int(pieces.episode[piece]), text]
    helpful = np.isin(said.astype(str), [*HELPFUL])
    assert times[helpful].max() > 1
    for exponent in (0.0, 3.0, np.inf):
        made.config = replace(made.config, exponent=exponent)
        wanted = 2.0 * pieces.rewards + 0.5 * helpful * times**-exponent
        np.testing.assert_allclose(made.rewards(pieces), wanted, rtol=1e-6)


def test_one_rollout_goes_on_counting_where_the_last_one_stopped() -> None:
    """An episode is longer than a rollout, and its policy is paid by what came before, too."""
    made = learner()
    paid = []
    update = made.policy.update

    def watched(segments: Any, rewards: np.ndarray) -> Any:
        paid.append((segments, rewards))
        return update(segments, rewards)

    made.policy.update = watched
    made.learn(1_024)
    labelled = made.annotator.counts()["labelled"]
    assert labelled >= 8
    begun = [int((np.asarray(segments.start) > 0).sum()) for segments, _ in paid]
    assert sum(begun) > 0
    last, rewards = paid[-1]
    np.testing.assert_array_equal(made.rewards(last), rewards)


def test_steps_that_a_replay_has_lost_do_not_shift_the_others() -> None:
    made = Intrinsic(backend(capacity=160), annotator(), exponent=0.0, extrinsic=0.0, intrinsic=1.0)
    made.learn(1_024)
    pieces = everything(made)
    first = {int(one): int(pieces.start[pieces.episode == one].min()) for one in pieces.episode}
    assert max(first.values()) > 0
    said = pieces.factors[CAPTION].astype(int)
    helpful = np.isin(said, [made.captions.number([one])[0] for one in HELPFUL])
    assert helpful.any()
    np.testing.assert_array_equal(made.rewards(pieces), helpful * pieces.mask)


@pytest.mark.parametrize("preset", ["retrieval", "classification"])
def test_what_a_judge_calls_unhelpful_earns_nothing(preset: str) -> None:
    made = learner(preset)
    made.learn(768)
    judged = {question[0]: label for question, label in made.annotator.get_state()["labelled"]}
    assert {one for one, label in judged.items() if label} == HELPFUL & {*judged} != set()
    assert 0.0 in judged.values()
    np.testing.assert_array_equal(made.model.rewards([*judged]), [*judged.values()])


def test_without_its_own_weight_the_task_does_not_count() -> None:
    made = learner(extrinsic=0.0)
    made.learn(512)
    pieces = everything(made)
    assert not made.rewards(pieces)[np.asarray(pieces.factors[CAPTION]) == 0].any()


# -- keeping -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Intrinsic. no caption is found helpful, or better")
@pytest.mark.parametrize("preset", ["retrieval", "ranking", "motif"])
def test_killed_at_half_it_goes_on_bit_for_bit(preset: str, run_folder: Any) -> None:
    given = {"label_steps": 1_536, "fit_steps": 20} if preset == "motif" else {}
    end = 1_792 if given else 1_024
    first = learner(preset, **given)
    for steps, _ in (turns := first.iterations(end)):
        if steps >= end // 2:
            break
    first.save(run_folder / "saved")
    for _ in turns:
        pass
    second = learner(preset, seed=7, **given).load(run_folder / "saved").learn(end)
    assert leak.fingerprint(first) == leak.fingerprint(second)
    known = first.captions.texts(range(len(first.captions)))
    assert known == second.captions.texts(range(len(second.captions)))
    np.testing.assert_array_equal(first.model.rewards(known), second.model.rewards(known))
    assert first.annotator.counts() == second.annotator.counts()


# -- Motif -------------------------------------------------------------------------------------


def test_motif_labels_first_and_then_freezes() -> None:
    made = learner("motif", label_steps=1_536, fit_steps=50)
    begun = leak.fingerprint(made)
    told: list[np.ndarray] = []
    for steps, metrics in made.iterations(1_920):
        assert (leak.fingerprint(made) == begun) == (steps < 1_536) == (not made.frozen)
        if made.frozen:
            told.append(made.model.rewards(made.captions.texts(range(len(made.captions)))))
            assert made.annotator.counts()["asked"] == metrics["rater/asked"] > 0
    assert len(told) == 4
    assert told[0].any()
    for later in told[1:]:
        np.testing.assert_array_equal(later[: len(told[0])], told[0])
    labels = made.annotator.counts()["labelled"]
    made.learn(256, reset_num_timesteps=False)
    assert made.annotator.counts()["labelled"] == labels > 10


@pytest.mark.filterwarnings("ignore:Intrinsic. no caption is found helpful")
def test_motif_waits_for_an_annotator_that_answers_now_and_then() -> None:
    late = annotator("ranking", every=1_000)
    made = Intrinsic(backend(), late, "motif", label_steps=256, fit_steps=5).learn(384)
    assert late.counts()["waiting"] == 0 < late.counts()["labelled"]
    assert made.frozen


def test_motif_that_learned_in_the_end_that_all_is_equal_says_so() -> None:
    late = annotator("ranking", Always("ANSWER: tie"), every=1_000)
    made = Intrinsic(backend(), late, "motif", label_steps=256, fit_steps=5)
    with pytest.warns(UserWarning, match="no caption is found helpful, or better"):
        made.learn(512)


@pytest.mark.filterwarnings("ignore:The annotator's judge fails")
def test_motif_without_answers_says_so() -> None:
    silent = annotator("ranking", Always(None))
    made = Intrinsic(backend(), silent, "motif", label_steps=256, fit_steps=5)
    with pytest.warns(UserWarning, match="questions have no answer"):
        made.learn(384)
    assert made.frozen


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "judge", "sentence"),
    [
        ("retrieval", Always("ANSWER: no"), "no caption is found helpful, or better"),
        ("ranking", Always("ANSWER: tie"), "no caption is found helpful, or better"),
        ("retrieval", Always("Well."), "no label has come in the first"),
        ("ranking", Always(None), "no label has come in the first"),
    ],
)
@pytest.mark.filterwarnings("ignore:The annotator's judge fails")
def test_a_judge_who_never_helps_is_one_warning_and_no_end(
    preset: str, judge: Always, sentence: str
) -> None:
    kind = "ranking" if preset == "ranking" else "helpful"
    made = Intrinsic(backend(), annotator(kind, judge), preset)
    before = leak.fingerprint(made)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made.learn(1_024)
    assert [sentence in str(one.message) for one in said].count(True) == 1
    assert made.num_timesteps == 1_024
    assert leak.fingerprint(made) != before


def test_a_judge_who_never_helps_is_told_of_where_there_are_few_captions() -> None:
    env = gym.make_vec("prefgym/Empty-8x8-v0", num_envs=2, counts=4, query_every=None)
    policy = sb3_backend("PPO", env, n_steps=16, batch_size=32, policy_kwargs={"net_arch": [8]})
    made = Intrinsic(policy, annotator(judge=Always("ANSWER: no")))
    with pytest.warns(UserWarning, match="no caption is found helpful"):
        made.learn(256)
    assert made.annotator.counts()["labelled"] < 5


def test_a_judge_who_helps_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner().learn(1_024)
        learner(intrinsic=0.0).learn(512)


def test_what_cannot_be_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="kind 'helpful', and model='ranking' learns from"):
        Intrinsic(backend(), annotator(), "ranking")
    with pytest.raises(ValueError, match="kind 'ranking', and model='retrieval' learns from"):
        Intrinsic(backend(), annotator("ranking"))
    for silent in ("prefgym/Pendulum-v0", GRID):
        more = {"captions": False} if silent == GRID else {}
        env = gym.make_vec(silent, num_envs=2, query_every=None, **more)
        with pytest.raises(ValueError, match="this environment tells no captions"):
            Intrinsic(sb3_backend("PPO", env, n_steps=32, batch_size=64), annotator())
    with pytest.raises(ValueError, match="setting of Intrinsic"):
        learner(exponents=2.0)
    with pytest.raises(ValueError, match="exponent=-1"):
        learner(exponent=-1.0)
    with pytest.raises(ValueError, match="give label_steps"):
        learner(freeze=True)


# -- other backends, and the annotator with a process ------------------------------------------


def test_what_is_replayed_is_judged_anew_when_labels_arrive() -> None:
    late = annotator(every=5)
    made = Intrinsic(backend("DQN"), late, extrinsic=0.0, intrinsic=1.0)
    relabelled, relabel = [], made.policy.relabel

    def watched(rewards: Any, episodes: Any = None) -> None:
        relabelled.append(late.counts()["labelled"])
        relabel(rewards, episodes)

    made.policy.relabel = watched
    labelled = []
    for _ in made.iterations(2_000):
        labelled.append(late.counts()["labelled"])
    assert labelled[0] == 0 < labelled[-1]
    assert relabelled == [0, *sorted({*labelled} - {0})]  # once in the beginning, then with news
    store, replay = made.store, made.policy.replay
    index = store.since(np.zeros(store.lanes, np.int64), 200)
    segments = store.segments(index, 200)
    lanes, first = store.rows(index)
    wanted = made.rewards(segments)
    assert wanted.any()
    for row, (lane, begin, length) in enumerate(zip(lanes, first, index.length, strict=True)):
        written = replay.learned[lane, begin : begin + length]
        np.testing.assert_allclose(written, wanted[row, :length], rtol=1e-6)


def test_a_process_annotates_while_others_act(run_folder: Any) -> None:
    with Annotator(run_folder / "labels", partial(rater, GOAL)) as away:
        made = Intrinsic(backend(), away)
        for _, metrics in made.iterations(100_000):
            if metrics["intrinsic/reward"] > 0.0:
                break
            time.sleep(0.02)
        assert metrics["intrinsic/reward"] > 0.0
        assert metrics["rater/labelled"] > 0
        assert metrics["rater/failures"] == metrics["rater/restarts"] == 0


def test_finished_phrases_of_a_text_earn(run_folder: Any) -> None:
    pytest.importorskip("transformers")
    from prefgym_agents.language import language_backend

    env = gym.make_vec("prefgym/TextPolite-v0", num_envs=16, captions=True, query_every=None)
    policy = language_backend(env, algorithm="PPO", seed=0, learning_rate=1e-3)
    please = Inline(LanguageRater(RuleJudge(), "gladly, thanks"))
    made = Intrinsic(policy, please, extrinsic=0.0, intrinsic=1.0)
    metrics = [told for _, told in made.iterations(1_000)]
    known = made.captions.texts(range(len(made.captions)))
    earning = {one for one, reward in zip(known, made.model.rewards(known), strict=True) if reward}
    assert earning
    assert len(earning) < len(known) - 1
    assert metrics[-1]["intrinsic/reward"] > 0.0
