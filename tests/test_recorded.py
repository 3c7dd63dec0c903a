"""Raters that answer from records or from a model, and TRL rows as a backend reads them."""

from typing import Any

import numpy as np
import pytest
import torch

from prefgym.comparisons import Comparisons
from prefgym.converters.trl import from_trl
from prefgym.raters import Rater
from prefgym.raters.recorded import ModelRater, RecordedRater
from prefgym.segments import Segments
from prefgym.text import Layout, Vocabulary

LAYOUT = Layout(Vocabulary.of("a", "b", "c"), prompt_tokens=3, response_tokens=4)
ROWS = [
    {"prompt": "a b", "chosen": "a a a a", "rejected": "b"},
    {"prompt": "c", "chosen": "c", "rejected": "a b", "rater_id": 7},
    {"prompt": "c", "chosen": "c", "rejected": "a b", "preference": 0.5, "rater_id": 7},
]
RNG = np.random.default_rng(0)


def recorded() -> Comparisons:
    return from_trl(ROWS, layout=LAYOUT, meaning="human")


def test_rows_lie_as_the_layout_says() -> None:
    data = recorded()
    assert data.a.context.tolist() == [[0, 2, 3], [0, 0, 4], [0, 0, 4]]
    assert data.a.actions.tolist() == [[2, 2, 2, 2], [4, 1, 0, 0], [4, 1, 0, 0]]
    assert data.b.actions.tolist() == [[3, 1, 0, 0], [2, 3, 1, 0], [2, 3, 1, 0]]
    assert data.b.mask.sum(1).tolist() == [2, 3, 3]
    assert data.a.context_id[1] == data.a.context_id[2] != data.a.context_id[0]
    assert LAYOUT.text(data.a)[1] == "c → c"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "same text as chosen and as rejected"),
        ({"prompt": "a b c a", "chosen": "a", "rejected": "b"}, "prompt of 4 tokens"),
        ({"prompt": "a", "chosen": "a a a a a", "rejected": "b"}, "response of 5 tokens"),
        ({"prompt": "a", "chosen": "d", "rejected": "b"}, "'d'"),
    ],
)
def test_rows_that_do_not_fit_are_shown(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_trl([row], layout=LAYOUT)


def test_what_was_recorded_is_answered_in_either_order_and_the_rest_skipped() -> None:
    data = recorded()
    rater: Rater = RecordedRater(data)
    assert rater.meaning == "human"
    for order, expected in (((data.a, data.b), [1.0, 0.75, 0.75]), ((data.b, data.a), [0, 0.25])):
        labels = rater(*order, RNG)
        assert labels.answered.all()
        assert labels.label.tolist()[: len(expected)] == expected
        assert labels.rater_id.tolist() == [0, 7, 7]
    np.testing.assert_allclose(
        rater.probability(data.a, data.b) + rater.probability(data.b, data.a), 1.0
    )
    other = rater(data.a, data.a, RNG)
    assert not other.answered.any()
    padded = rater(data.a.padded(9), data.b, RNG)
    assert padded.answered.all()


class Longer:
    """Prefers the longer one, two members."""

    def logits(self, a: Segments, b: Segments) -> torch.Tensor:
        gap = torch.as_tensor(a.mask.sum(1) - b.mask.sum(1))
        return torch.stack([gap, gap + 0.5])  # the second favours the first side


def test_a_model_judges_by_its_log_odds_without_favouring_a_side() -> None:
    data = recorded()
    rater: Rater = ModelRater(Longer())
    chance = rater.probability(data.a, data.b)
    gap = data.a.mask.sum(1) - data.b.mask.sum(1)
    np.testing.assert_allclose(chance, 1 / (1 + np.exp(-gap)))
    np.testing.assert_allclose(chance + rater.probability(data.b, data.a), 1.0)
    many = np.zeros(20_000, np.int64) + 1
    drawn = rater(data.a.take(many), data.b.take(many), RNG).label.mean()
    assert abs(drawn - chance[1]) < 5 * np.sqrt(0.25 / 20_000)
