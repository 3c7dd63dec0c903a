"""Converters: round trips, which side was preferred, and what happens to bad data."""

import copy
import json
import os
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym import converters
from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.converters import trl
from prefgym.segments import Segments
from prefgym.text import Layout

# TRL.

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "prompt": WORDS,
                "chosen": WORDS,
                "rejected": WORDS,
                "preference": st.sampled_from([0.75, 1.0]),
                "rater_id": st.integers(0, 5),
                "weight": st.floats(0.0, 3.0),
                "strength": st.none() | st.floats(0.0, 3.0),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    messages=st.booleans(),
)
def test_text_goes_to_comparisons_and_back(rows: list[dict[str, Any]], messages: bool) -> None:
    rows = [row | {"query_id": 10 + number} for number, row in enumerate(rows)]
    comparisons = converters.from_trl(rows, meaning="human")
    assert len(comparisons) == len(rows)
    back = converters.to_trl(comparisons, messages=messages)
    again = converters.to_trl(converters.from_trl(back), messages=False)
    assert again == rows


def test_the_chosen_response_is_the_first_segment() -> None:
    one = converters.from_trl([{"prompt": "ab", "chosen": "xyz", "rejected": "q"}])
    assert one.label.tolist() == [1.0]
    assert one.a.actions[0].tolist() == list(b"xyz")
    assert one.b.actions[0].tolist() == [*b"q", 0, 0]
    assert one.b.mask[0].tolist() == [True, False, False]
    assert one.a.context[0].tolist() == list(b"ab")
    assert one.a.observations is None


def test_equal_prompts_have_equal_context_ids() -> None:
    rows = [{"prompt": prompt, "chosen": "x", "rejected": "y"} for prompt in ("p", "long", "p")]
    one = converters.from_trl(rows)
    assert one.a.context_id.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(one.a.context[0], one.a.context[2])


def test_labels_below_a_half_choose_the_second() -> None:
    one = converters.from_trl([{"prompt": "p", "chosen": "good", "rejected": "bad"}])
    other = one.replace(a=one.b, b=one.a, label=np.array([0.25]))
    (row,) = converters.to_trl(other)
    assert (row["chosen"], row["rejected"], row["preference"]) == ("good", "bad", 0.75)


@pytest.mark.parametrize("form", ["preference", "unpaired"])
def test_ties_are_dropped_or_told_in_both_orders(form: str) -> None:
    one = converters.from_trl([{"prompt": "p", "chosen": "x", "rejected": "y"}])
    tie = one.replace(label=np.array([0.5]), weight=np.array([3.0]))
    assert converters.to_trl(tie, form=form) == []
    rows = converters.to_trl(tie, form=form, ties="double")
    back = converters.from_trl(rows)
    assert back.label.tolist() == [0.5, 0.5]
    assert back.weight.sum() == 3.0
    np.testing.assert_array_equal(back.a.actions, back.b.actions[::-1])
    with pytest.raises(ValueError, match="Unknown treatment of ties 'keep'"):
        converters.to_trl(tie, form=form, ties="keep")


def test_good_and_bad_completions_become_pairs() -> None:
    rows = [
        {"prompt": "p", "completion": "good 1", "label": True},
        {"prompt": "q", "completion": "alone", "label": True},
        {"prompt": "p", "completion": "bad", "label": False},
        {"prompt": "p", "completion": "good 2", "label": True},
    ]
    back = converters.to_trl(converters.from_trl(rows))
    assert [(row["chosen"], row["rejected"]) for row in back] == [
        ("good 1", "bad"),
        ("good 2", "bad"),
    ]
    with pytest.raises(ValueError, match="no prompt has both a completion with label true"):
        converters.from_trl(rows[:2])


def test_the_unpaired_form_comes_back_as_the_same_pairs() -> None:
    rows = [{"prompt": "p", "chosen": f"x{at}", "rejected": f"y{at}"} for at in range(3)]
    one = converters.from_trl(rows)
    unpaired = converters.to_trl(one, form="unpaired", messages=True)
    assert [row["label"] for row in unpaired] == [True, False] * 3
    assert converters.to_trl(converters.from_trl(unpaired)) == converters.to_trl(one)


def test_a_prompt_that_is_not_told_is_what_both_begin_with() -> None:
    (row,) = converters.to_trl(
        converters.from_trl([{"chosen": "Sky is blue.", "rejected": "Sky is green."}])
    )
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Sky is", " blue.", " green.")
    asked = [{"role": "user", "content": "Why?"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("Yes.", "No.")]
    (row,) = converters.to_trl(
        converters.from_trl([{"chosen": asked + answers[0], "rejected": asked + answers[1]}])
    )
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Why?", "Yes.", "No.")


def test_scores_and_margins_are_strengths() -> None:
    row = {"prompt": "p", "chosen": "x", "rejected": "y"}
    rows = [row | {"score_chosen": 9.0, "score_rejected": 7.5}, row | {"margin": 3}, row]
    strength = converters.from_trl(rows).strength
    assert strength[:2].tolist() == [1.5, 3.0]
    assert np.isnan(strength[2])


def test_a_tokenizer_of_the_users() -> None:
    words = {"red": 4, "blue": 5, "?": 6}
    names = {number: word for word, number in words.items()}
    one = converters.from_trl(
        [{"prompt": "?", "chosen": "red red", "rejected": "blue"}],
        encode=lambda text: [words[word] for word in text.split()],
    )
    assert one.a.actions.tolist() == [[4, 4]]
    render = converters.rendering(lambda tokens: " ".join(names[token] for token in tokens))
    (row,) = converters.to_trl(one, render)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("?", "red red", "blue")
    with pytest.raises(ValueError, match=r"row 0 was encoded to float64\[1\] instead of"):
        converters.from_trl(
            [{"prompt": "?", "chosen": "red", "rejected": "blue"}],
            encode=lambda text: [0.5],  # type: ignore[list-item]
        )


class Split:
    """What a Hugging Face data set looks like from here: an iterable of dicts."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows)


def test_rows_come_from_lists_tables_splits_and_files(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "x ö", "rejected": "y"}] * 2
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    converters.write_rows(rows, tmp_path / "rows.jsonl")
    converters.write_rows(rows, tmp_path / "rows.parquet")
    sources = [rows, pa.Table.from_pylist(rows), Split(rows)]
    sources += [tmp_path / f"rows.{kind}" for kind in ("json", "jsonl", "parquet")]
    sources += [str(tmp_path / "rows.jsonl")]
    for source in sources:
        assert trl.read_rows(source) == rows
        assert len(converters.from_trl(source)) == 2
    assert not list(tmp_path.glob(".*"))


GOOD = {"prompt": "p", "chosen": "x", "rejected": "y"}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "got no rows"),
        ([GOOD, {"prompt": "p", "chosen": "x"}], r"row 1 has no 'rejected'.*the row is \{'prompt'"),
        ([{"text": "p"}], r"has no 'chosen', and TRL wants .*\(its columns are text\)"),
        ([GOOD | {"chosen": 3}], "row 0 has something else than text.* as 'chosen'"),
        ([GOOD | {"chosen": None}], "row 0 has no 'chosen'"),
        ([GOOD | {"prompt": [{"role": "user", "content": "p"}]}], "row 0 mixes plain text and"),
        ([GOOD | {"prompt": [{"content": "p"}]}], "messages with role and content, as 'prompt'"),
        ([GOOD | {"weight": "heavy"}], "row 0 has no number as 'weight'"),
        ([GOOD | {"chosen": "a\0"}], "row 0 cannot be encoded: the text holds a NUL"),
        ([{"prompt": "p", "completion": "x", "label": "?"}], "row 0 has no label that is true"),
        ({"train": [GOOD]}, r"mapping with the keys train; give one split"),
        ([["prompt", "p"]], r"row 0 is \['prompt', 'p'\], wanted a dict"),
    ],
)
def test_a_bad_row_is_shown(rows: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        converters.from_trl(rows)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"prompt": "p"}\n{half\n', r"a\.jsonl, line 2 is no JSON .*half"),
        ("a.json", "[", r"a\.json cannot be read"),
        ("a.parquet", "PAR1", r"a\.parquet cannot be read"),
        ("a.txt", "", r"ends in '\.txt'; wanted"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        converters.from_trl(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read"):
        converters.from_trl(tmp_path / "missing.jsonl")
    with pytest.raises(ValueError, match=r"choose a name that ends in"):
        converters.write_rows([], tmp_path / "rows.csv")


# Control.


def control(
    rng: np.random.Generator, batch: int = 5, steps: int = 4, ragged: bool = True
) -> Comparisons:
    def side() -> Segments:
        mask = np.ones((batch, steps), bool)
        mask[1:3, steps - 1 :] = not ragged
        observations = rng.normal(size=(batch, steps, 3)).astype(np.float32) * mask[..., None]
        return Segments(
            actions=rng.normal(size=(batch, steps, 2)).astype(np.float32) * mask[..., None],
            mask=mask,
            context=observations[:, 0],
            context_id=np.arange(batch),
            observations=observations,
            rewards=rng.normal(size=(batch, steps)) * mask,
        )

    return Comparisons(side(), side(), rng.choice([0.0, 0.25, 0.5, 1.0], batch))


def assert_same_pairs(one: Comparisons, other: Comparisons) -> None:
    np.testing.assert_allclose(one.label, other.label, atol=1e-7)
    for first, second in ((one.a, other.a), (one.b, other.b)):
        for name in ("observations", "actions", "mask", "rewards", "context"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


class Shouted:
    """A codec of letters: small ones become large, ``/`` is padding and ``.`` the end."""

    size, pad, eos = 28, 26, 27

    def encode(self, text: str) -> list[int]:
        return [{"/": self.pad, ".": self.eos}.get(one, ord(one) - 65) for one in text.upper()]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(65 + one) for one in tokens if one < self.pad)


LETTERS = Layout(Shouted(), prompt_tokens=3, response_tokens=4)


def test_prompts_that_are_one_in_tokens_are_one_prompt() -> None:
    rows = [{"prompt": "ab", "chosen": "a", "rejected": "b"}]
    one = converters.from_trl([*rows, {**rows[0], "prompt": "AB"}], layout=LETTERS)
    assert one.a.context.tolist() == [[26, 0, 1]] * 2
    assert one.a.context_id.tolist() == [0, 0]
    assert one.b.actions[:, :2].tolist() == [[1, 27]] * 2


def test_responses_that_are_one_in_tokens_are_no_preference() -> None:
    row = {"prompt": "a", "chosen": "Ab", "rejected": "aB"}
    with pytest.raises(ValueError, match="same text as chosen and as rejected, once they are tok"):
        converters.from_trl([row], layout=LETTERS)
    tie = converters.from_trl([{**row, "preference": 0.5}], layout=LETTERS)
    assert tie.label.tolist() == [0.5]


@pytest.mark.parametrize("changes", [{"chosen": "a."}, {"rejected": "/a"}, {"prompt": "/a"}])
def test_tokens_that_are_no_text_are_refused(changes: dict[str, str]) -> None:
    row = {"prompt": "a", "chosen": "a", "rejected": "b"}
    with pytest.raises(ValueError, match=r"token of padding \(26\) or of the end \(27\) in a text"):
        converters.from_trl([row | changes], layout=LETTERS)
    ended = converters.from_trl([row | {"prompt": "a.a"}], layout=LETTERS)
    assert ended.a.context.tolist() == [[0, 27, 0]]  # as chat templates end a message


def test_control_needs_words_for_trl(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="comparison 0 cannot be shown as text"):
        converters.to_trl(control(rng).replace(label=np.ones(5)))
    one = control(rng).replace(label=np.ones(5))

    def words(segment: Segments) -> tuple[str, str]:
        return "Drive.", f"It ends at {segment.observations[0, -1, 0]:.1f}."

    rows = converters.to_trl(one, words)
    assert rows[0]["chosen"] == f"It ends at {one.a.observations[0, -1, 0]:.1f}."

    def other_prompts(segment: Segments) -> tuple[str, str]:
        return str(segment.observations[0, 0, 0]), "."

    with pytest.raises(ValueError, match="the two segments of comparison 0 have different prompts"):
        converters.to_trl(one, other_prompts)


def imitation_modules(monkeypatch: pytest.MonkeyPatch) -> tuple[type, type]:
    """Classes with the names and attributes of imitation's, so that pickles look like its own."""

    class TrajectoryWithRew:
        def __init__(self, **attributes: Any) -> None:
            self.__dict__.update(attributes)

    class PreferenceDataset:
        def __init__(self, **attributes: Any) -> None:
            self.__dict__.update(attributes)

    for path, made in (
        ("imitation.data.types", TrajectoryWithRew),
        ("imitation.algorithms.preference_comparisons", PreferenceDataset),
    ):
        made.__module__, made.__qualname__ = path, made.__name__
        for end in range(1, path.count(".") + 2):
            name = ".".join(path.split(".")[:end])
            if name not in sys.modules:
                monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        setattr(sys.modules[path], made.__name__, made)
    return TrajectoryWithRew, PreferenceDataset


def imitation_dataset(
    comparisons: Comparisons, monkeypatch: pytest.MonkeyPatch, infos: bool = False
) -> Any:
    fragment_class, dataset_class = imitation_modules(monkeypatch)
    given = converters.to_imitation(comparisons)
    sides = {
        side: [
            fragment_class(
                **one
                | {
                    "infos": np.array([{"x": np.float64(1.0)}] * len(one["acts"]))
                    if infos
                    else None
                }
            )
            for one in given[side]
        ]
        for side in ("fragments1", "fragments2")
    }
    return dataset_class(**sides, preferences=given["preferences"], max_size=None)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("infos", [False, True])
def test_the_pickle_of_imitation_is_read_without_imitation(
    rng: np.random.Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: int,
    infos: bool,
) -> None:
    comparisons = control(rng)
    comparisons = comparisons.replace(
        a=comparisons.a.replace(actions=np.asfortranarray(comparisons.a.actions))
    )
    path = tmp_path / "preferences.pkl"
    with monkeypatch.context() as patch:
        dataset = imitation_dataset(comparisons, patch, infos)
        path.write_bytes(pickle.dumps(dataset, protocol=protocol))
        assert_same_pairs(converters.from_imitation(dataset), comparisons)
    assert "imitation" not in sys.modules
    read = converters.from_imitation(path, meaning="partial-return")
    assert_same_pairs(read, comparisons)
    assert read.meaning == "partial-return"


@given(seed=st.integers(0, 99), batch=st.integers(1, 4), steps=st.integers(2, 5))
def test_imitations_arrays_come_back(seed: int, batch: int, steps: int) -> None:
    comparisons = control(np.random.default_rng(seed), batch, steps)
    given = converters.to_imitation(comparisons)
    assert given["fragments1"][0]["obs"].shape == (steps + 1, 3)
    assert given["preferences"].dtype == np.float32
    assert_same_pairs(converters.from_imitation(given), comparisons)


def test_big_endian_numbers_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    given = converters.to_imitation(control(rng, ragged=False))
    swapped = copy.deepcopy(given)
    for fragment in swapped["fragments1"]:
        fragment["obs"] = fragment["obs"].astype(">f4")
    for protocol in (2, 5):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(swapped, protocol=protocol))
        assert_same_pairs(converters.from_imitation(path), converters.from_imitation(given))


class Evil:
    """Runs a command when unpickled the usual way."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.made = call, arguments

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, "touch trace"),
        Evil(eval, "open('trace', 'w')"),
        Evil(getattr, "text", "format"),
        Evil(np.load, "trace.npy"),
        Evil(np.frombuffer, b"12345678", "O"),
    ],
    ids=["system", "eval", "getattr", "load", "frombuffer"],
)
@pytest.mark.parametrize("protocol", [0, 4])
def test_no_foreign_code_runs(run_folder: Path, evil: Evil, protocol: int) -> None:
    data = {"fragments1": [evil], "fragments2": [], "preferences": np.ones(1)}
    (run_folder / "evil.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    with pytest.raises(ValueError, match=r"evil\.pkl cannot be read .*it asks for"):
        converters.from_imitation(run_folder / "evil.pkl")
    assert not (run_folder / "trace").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data.pop("preferences"), "has no preferences"),
        (lambda data: data["fragments1"].pop(), "4 first fragments, 5 second ones and 5 pref"),
        (lambda data: data["fragments1"][2].pop("acts"), "a fragment has no acts"),
        (
            lambda data: data["fragments2"][1].update(rews=np.zeros(9)),
            "fragment 1 of side b has 4 observations, 3 actions and 9 rewards",
        ),
        (lambda data: data["fragments1"][0].update(obs={"x": 1}), "obs of fragment 0 .* is dict"),
        (
            lambda data: data["fragments1"][0].update(obs=np.zeros((5, 7), np.float32)),
            r"observations have shapes \(3,\) and \(7,\) per step",
        ),
        (lambda data: data["fragments1"][0]["obs"].fill(np.nan), r"observations_a is nan at"),
        (lambda data: data.update(preferences=np.full(5, 2.0)), "label is 2.0 in row 0"),
    ],
)
def test_bad_fragments_are_named(
    rng: np.random.Generator, change: Callable[[Any], Any], sentence: str
) -> None:
    data = converters.to_imitation(control(rng))
    change(data)
    with pytest.raises(ValueError, match=sentence):
        converters.from_imitation(data)


def test_damaged_and_missing_pickles_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    content = pickle.dumps(converters.to_imitation(control(rng)))
    (tmp_path / "half.pkl").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half\.pkl cannot be read as imitation's"):
        converters.from_imitation(tmp_path / "half.pkl")
    with pytest.raises(ValueError, match=r"missing\.pkl cannot be read"):
        converters.from_imitation(tmp_path / "missing.pkl")
    with pytest.raises(ValueError, match="has no fragments1"):
        converters.from_imitation(7)


def test_text_has_no_observations_for_imitation_and_cpl() -> None:
    one = converters.from_trl([GOOD])
    with pytest.raises(ValueError, match="no observations"):
        converters.to_imitation(one)
    with pytest.raises(ValueError, match="these are text or have padding"):
        converters.to_cpl(one)


def test_cpl_pairs_come_back_and_mean_the_second(rng: np.random.Generator, tmp_path: Path) -> None:
    comparisons = control(rng, ragged=False)
    arrays = converters.to_cpl(comparisons)
    np.testing.assert_allclose(arrays["label"], 1.0 - comparisons.label)
    assert_same_pairs(converters.from_cpl(arrays), comparisons)
    np.savez(tmp_path / "pairs.npz", **arrays)
    assert_same_pairs(converters.from_cpl(tmp_path / "pairs.npz"), comparisons)
    with pytest.raises(ValueError, match="padding"):
        converters.to_cpl(control(rng))


def test_cpl_scores_compare_the_two_halves(rng: np.random.Generator) -> None:
    observations = rng.normal(size=(6, 4, 3))
    data = {
        "obs": observations,
        "action": rng.normal(size=(6, 4, 2)),
        "label": np.array([3.0, 1.0, 2.0, 1.0, 2.0, 2.0]),
    }
    one = converters.from_cpl(data)
    assert one.label.tolist() == [1.0, 0.0, 0.5]
    np.testing.assert_array_equal(one.b.observations, observations[3:])
    assert one.a.rewards is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"obs_2": None}, "there is no obs_2"),
        ({"action_1": np.zeros((3, 4, 2))}, r"observations_a has shape \(5, 4, 3\) and actions_a"),
        ({"obs_2": np.zeros((5, 4, 7)), "action_2": np.zeros((5, 4, 2))}, r"\(7,\) on side b"),
        ({"reward_1": np.zeros((5, 9))}, r"rewards_a has shape \(5, 9\), wanted \(5, 4\)"),
        ({"reward_1": np.full((5, 4), np.inf)}, r"rewards_a is inf at \(0, 0\)"),
        ({"reward_1": None}, "rewards came for one side only"),
        ({"label": np.array(["a"] * 5)}, "label came as ndarray, wanted an array of numbers"),
        ({"rater_id": np.full(5, 0.5)}, r"rater_id came as float64 of shape \(5,\) for 5 pairs"),
        ({"label": np.ones(4)}, r"label has shape \(4,\), wanted \(5,\)"),
    ],
)
def test_bad_arrays_are_named(
    rng: np.random.Generator, changes: dict[str, Any], sentence: str
) -> None:
    data = converters.to_cpl(control(rng, ragged=False)) | changes
    with pytest.raises(ValueError, match=sentence):
        converters.from_cpl({name: one for name, one in data.items() if one is not None})


def test_bad_npz_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("nothing")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as \.npz"):
        converters.from_cpl(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", label=np.array([{}], object), action_1=np.zeros(1))
    with pytest.raises(ValueError, match=r"b\.npz cannot be read as \.npz"):
        converters.from_cpl(tmp_path / "b.npz")


def test_masks_must_end_with_padding(rng: np.random.Generator) -> None:
    one = control(rng)
    mask = np.ones((5, 4), bool)
    mask[:, 1] = False
    with pytest.raises(ValueError, match="true up to the end of each segment and false behind"):
        converters.from_arrays(
            one.a.observations,
            one.a.actions,
            one.b.observations,
            one.b.actions,
            one.label,
            mask_a=mask,
        )


def test_bpref_labels_are_the_index_of_the_preferred(rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(2, 3, 4, 5))
    one = converters.from_bpref(first, second, np.array([[0], [1], [-1]]), observation_size=3)
    assert one.label.tolist() == [1.0, 0.0, 0.5]
    np.testing.assert_array_equal(one.a.observations, first[..., :3])
    np.testing.assert_array_equal(one.b.actions, second[..., 3:])
    with pytest.raises(ValueError, match=r"labels other than 0 .* came"):
        converters.from_bpref(first, second, np.array([0, 1, 2]), observation_size=3)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\) and observation_size is 5"):
        converters.from_bpref(first, second, np.zeros(3), observation_size=5)


# The delivery gridworld.

STAY = (0, 0)
UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)


def test_cells_follow_the_moves_around_houses_and_borders() -> None:
    pairs = np.array(
        [
            [[(0, 0), UP, LEFT, DOWN], [(3, 3), RIGHT, DOWN, DOWN]],
            [[(8, 8), RIGHT, STAY, STAY], [(9, 9), DOWN, RIGHT, LEFT]],
        ]
    )
    one = converters.from_delivery(pairs, np.array([1.0, 0.5]), observation="coordinates")
    assert one.label.tolist() == [0.0, 0.5]  # 1 in the file means the second
    assert one.a.observations[0].tolist() == [[0, 0], [0, 0], [0, 0]]
    assert one.b.observations[0].tolist() == [[3, 3], [3, 3], [4, 3]]  # (3, 4) is a house
    assert one.b.observations[1].tolist() == [[9, 9], [9, 9], [9, 9]]
    assert one.a.observations.dtype == np.float32
    assert one.a.actions.tolist() == [[0, 2, 1], [3, 0, 0]]
    assert one.a.mask.tolist() == [[True, True, True], [True, False, False]]
    assert one.a.context_id.tolist() == [0, 88]
    assert one.meaning == "human"
    indexed = converters.from_delivery(pairs, np.array([1.0, 0.5]))
    assert indexed.b.observations[0].tolist() == [33, 33, 43]
    assert indexed.a.context.tolist() == [0, 88]
    with pytest.raises(ValueError, match="Unknown observation 'cells'"):
        converters.from_delivery(pairs, np.zeros(2), observation="cells")
    free = converters.from_delivery(pairs, np.zeros(2), blocked=np.zeros((10, 10), bool))
    assert free.b.observations[0].tolist() == [33, 34, 44]


@pytest.mark.parametrize(
    ("pairs", "labels", "sentence"),
    [
        (np.zeros((2, 4, 2), int), np.zeros(2), r"shape \(2, 4, 2\), wanted \[pairs, 2"),
        (np.zeros((2, 2, 4, 2)), np.zeros(2), "got float64 segment_pairs"),
        (np.zeros((2, 2, 4, 2), int), np.zeros(3), "2 pairs and 3 labels"),
        (np.full((1, 2, 2, 2), 11), np.zeros(1), "starts off the board of 10 × 10"),
        (np.array([[[(3, 4), UP]] * 2]), np.zeros(1), "or in a blocked cell"),
        (np.array([[[(0, 0), (1, 1)]] * 2]), np.zeros(1), "a move is neither one cell"),
        (np.array([[[(0, 0), STAY, UP]] * 2]), np.zeros(1), "a move is neither one cell"),
        (np.array([[[(0, 0), UP]] * 2]), np.array([2.0]), "label is -1.0 in row 0"),
        (np.array([[[(0, 0), UP]] * 2]), np.array([np.nan]), r"labels is nan at \(0,\)"),
    ],
)
def test_bad_boards_moves_and_labels_are_named(
    pairs: np.ndarray, labels: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        converters.from_delivery(pairs, labels)


def test_delivery_files_are_found_by_folder_or_beginning(tmp_path: Path) -> None:
    np.save(tmp_path / "group_segment_pairs.npy", np.array([[[(0, 0), DOWN]] * 2]))
    np.save(tmp_path / "group_Y.npy", np.array([1.0]))
    for path in (tmp_path, tmp_path / "group", str(tmp_path / "group")):
        assert converters.read_delivery(path).label.tolist() == [0.0]
    with pytest.raises(ValueError, match=r"nothing_segment_pairs\.npy cannot be read"):
        converters.read_delivery(tmp_path / "nothing")
    np.save(tmp_path / "other_segment_pairs.npy", np.zeros(1))
    with pytest.raises(ValueError, match="holds 2 files that end in"):
        converters.read_delivery(tmp_path)
    np.save(tmp_path / "group_Y.npy", np.array([{}], object))
    with pytest.raises(ValueError, match=r"group_Y\.npy cannot be read"):
        converters.read_delivery(tmp_path / "group")


_ROOT = Path(__file__).parents[1]
_PLACES = [os.environ.get("PREFGYM_KNOX_DATA", ""), str(_ROOT.parent / "shared/data/knox_human")]
KNOX = [place for place in _PLACES if place and any(Path(place).glob("*_segment_pairs.npy"))][:1]


def _rewards_of_entering() -> tuple[np.ndarray, np.ndarray]:
    """Reward for entering each cell of the delivery board, and for staying on it."""
    stay = np.full((10, 10), -1.0)
    mud = [(1, 9), (2, 7), (2, 8), (2, 9), (3, 7), (3, 8), (4, 0), (4, 1), (5, 0), (6, 0)]
    for cell in [*mud, (7, 7), (7, 8), (7, 9), (8, 7), (8, 8), (8, 9)]:
        stay[cell] = -2.0
    enter = stay.copy()
    for cell in [(0, 2), (3, 2), (6, 4), (8, 2), (9, 6)]:
        enter[cell] -= 1.0
    for cell in [(1, 4), (3, 0), (5, 2), (7, 1), (9, 9), (7, 7)]:
        enter[cell] += 1.0
    for cell in [(2, 2), (3, 5), (3, 6), (6, 3)]:
        enter[cell] = -50.0
    enter[8, 9] = 50.0
    return enter, stay


@pytest.mark.parametrize("folder", KNOX)
def test_human_data_give_the_published_returns(folder: str) -> None:
    """The file with the differences of returns is matched by following every segment."""
    one = converters.read_delivery(folder)
    assert len(one) == 1793
    enter, stay = (values.reshape(-1) for values in _rewards_of_entering())
    moves = np.array([-10, 10, -1, 1])
    returns = []
    for side in (one.a, one.b):
        here = side.observations
        column, row = here % 10, here // 10
        inside = np.stack([row > 0, row < 9, column > 0, column < 9], -1)
        free = np.take_along_axis(inside, side.actions[..., None], -1)[..., 0]
        there = np.where(free, here + moves[side.actions], here)
        free &= ~np.isin(there, (34, 61, 65))
        gained = np.where(free, enter[there], stay[here])
        returns.append((gained * side.mask).sum(1))
    (differences,) = Path(folder).glob("*_X.npy")
    np.testing.assert_array_equal(returns[1] - returns[0], np.load(differences)[:, 0])


# The functions behind `prefgym data`.


def test_convert_and_inspect(rng: np.random.Generator, tmp_path: Path) -> None:
    rows = [GOOD | {"rater_id": at % 2, "chosen": f"x{at}"} for at in range(4)]
    converters.write_rows(rows, tmp_path / "rows.jsonl")
    ours = tmp_path / "ours"
    for _ in range(2):  # the second time adds nothing
        report = converters.convert(tmp_path / "rows.jsonl", ours, "trl", meaning="human")
    assert report["comparisons"] == 4
    assert report["meaning"] == "human"
    assert report["raters"] == {"0": 2, "1": 2}
    assert report["labels"]["0.9-1.0"] == 4
    assert report["lengths"] == [1, 2]
    assert report == json.loads(json.dumps(report))
    lines = converters.summary(report).splitlines()
    assert any(line.split() == ["comparisons", "4"] for line in lines)
    assert "lengths         1 to 2" in lines
    for format, name in (("trl", "a.parquet"), ("kto", "b.jsonl"), ("trl-messages", "c.jsonl")):
        converters.convert(ours, tmp_path / name, format)
        back = converters.to_trl(converters.from_trl(tmp_path / name))
        assert [row["chosen"] for row in back] == ["x0", "x1", "x2", "x3"]

    comparisons = control(rng, ragged=False)
    np.savez(tmp_path / "cpl.npz", **converters.to_cpl(comparisons))
    converters.convert(tmp_path / "cpl.npz", tmp_path / "control", "cpl")
    converters.convert(tmp_path / "control", tmp_path / "back.npz", "cpl")
    assert_same_pairs(converters.from_cpl(tmp_path / "back.npz"), comparisons)

    with pytest.raises(ValueError, match=r"Unknown format to read 'trll'.*'trl'"):
        converters.convert(tmp_path / "rows.jsonl", tmp_path / "new", "trll")
    with pytest.raises(ValueError, match="Unknown format to write 'delivery'"):
        converters.convert(ours, tmp_path / "new", "delivery")
    with pytest.raises(ValueError, match="holds no preferences"):
        converters.inspect(tmp_path / "new")


@pytest.mark.parametrize("format", converters.WRITERS)
def test_who_answered_survives_every_format(
    format: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Written to a file and read again, through directories of ours on both sides."""
    raters = np.array([7, 0, 7, 2, 3])
    if format == "cpl":
        comparisons = control(rng, ragged=False)
    else:
        rows = [GOOD | {"chosen": f"x{at}", "rejected": f"y{at}"} for at in range(5)]
        comparisons = converters.from_trl(rows, meaning="human")
    dataset = PreferenceDataset(tmp_path / "ours")
    dataset.append(comparisons.replace(rater_id=raters))
    dataset.close()
    file = tmp_path / ("file.npz" if format == "cpl" else "file.jsonl")
    converters.convert(tmp_path / "ours", file, format)
    back = format if format in converters.READERS else "trl"
    converters.convert(file, tmp_path / "back", back, meaning="human")
    np.testing.assert_array_equal(
        PreferenceDataset.open(tmp_path / "back").comparisons.rater_id, raters
    )


def test_who_answered_survives_arrays_and_imitation(rng: np.random.Generator) -> None:
    comparisons = control(rng).replace(rater_id=np.array([7, 0, 7, 2, 3]))
    given = converters.to_imitation(comparisons)
    back = converters.from_imitation(given)
    np.testing.assert_array_equal(back.rater_id, comparisons.rater_id)
    unknown = {name: one for name, one in given.items() if name != "rater_id"}
    assert set(converters.from_imitation(unknown).rater_id) == {0}

    side = rng.normal(size=(5, 4, 3))
    made = converters.from_arrays(side, side, side, side, np.ones(5), rater_id=[7, 0, 7, 2, 3])
    np.testing.assert_array_equal(made.rater_id, comparisons.rater_id)
    with pytest.raises(ValueError, match=r"one whole number for each, shape \(5,\)"):
        converters.from_arrays(side, side, side, side, np.ones(5), rater_id=[7, 0])


def test_an_empty_data_set_can_be_inspected(tmp_path: Path) -> None:
    PreferenceDataset(tmp_path, meaning="human").close()
    report = converters.inspect(tmp_path)
    assert (report["comparisons"], report["skipped"], report["files"]) == (0, 0, 0)
    assert "human" in converters.summary(report)
