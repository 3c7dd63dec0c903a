"""Prompts from files, and tokenizers of Hugging Face: what is read, asked, and refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium.utils.env_checker import check_env

from prefgym.segments import Segments
from prefgym.text import Codec
from prefgym_envs import text_files

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

WORDS = ("<pad>", "<eos>", "<unk>", "what", "is", "red", "?", "the", "rose")
PROMPTS = ["what is red ?", "the rose", "what is the rose ?", "the rose"]


def tokenizer(**special: str) -> Any:
    """A tokenizer of nine words."""
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>")
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", **special
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tokenizer, as people save one."""
    tokenizer(pad_token="<pad>", eos_token="<eos>").save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def lines(folder: Path, rows: list[Any], name: str = "prompts.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def parquet(folder: Path, columns: dict[str, list[Any]]) -> str:
    path = folder / "prompts.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def shorter(a: Segments, b: Segments) -> np.ndarray:
    """A judge who likes brevity."""
    chances: np.ndarray = 0.5 + 0.5 * np.sign(b.lengths - a.lengths)
    return chances


# --- what is read -------------------------------------------------------------------------------


def test_every_kind_of_file_makes_the_same_task(folder: Path) -> None:
    words = str(folder / "tokenizer")
    tasks = [
        text_files.task(words, prompts)
        for prompts in (
            PROMPTS,
            lines(folder, [{"prompt": one, "n": 1} for one in PROMPTS]),
            parquet(folder, {"id": [0, 1, 2, 3], "prompt": PROMPTS}),
        )
    ]
    tasks.append(text_files.task(words, parquet(folder, {"question": PROMPTS}), column="question"))
    for one in tasks:
        assert isinstance(one.layout.codec, Codec)
        assert (one.layout.codec.size, one.layout.prompt_tokens) == (9, 5)
        shown = [one.layout.codec.decode(row) for row in one.prompts.tolist()]
        assert shown == PROMPTS[:3]  # a prompt that comes twice counts once
        assert one.prompts[1].tolist() == [0, 0, 0, 7, 8]


def test_an_environment_writes_in_the_tokenizers_words(folder: Path) -> None:
    env = text_files.raw(
        tokenizer=str(folder / "tokenizer"),
        prompts=PROMPTS,
        response_tokens=4,
        render_mode="ansi",
    )
    check_env(env, skip_render_check=True)
    env.reset(options={"prompt": 0})
    codec = env.layout.codec
    for token in codec.encode("the rose"):
        _, reward, terminated, truncated, info = env.step(token)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {"factors": {}})
    assert env.render() == "what is red ? → the rose"
    assert env.step(codec.eos)[2:4] == (True, False)
    twin = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(twin.reset(seed=1)[0], env.reset(seed=1)[0])


def test_a_judge_of_ones_own_is_asked(folder: Path) -> None:
    arguments: dict[str, Any] = {
        "tokenizer": str(folder / "tokenizer"),
        "prompts": lines(folder, [{"prompt": one} for one in PROMPTS]),
        "response_tokens": 6,
    }
    env: Any = gym.make("prefgym/TextPrompts-v0", rater=shorter, query_every=10, **arguments)
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(200):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        assert info["true_reward"] == 0.0
        if terminated or truncated:
            env.reset()
    answers = env.get_wrapper_attr("preferences").comparisons
    assert env.get_wrapper_attr("segment_steps") == 6
    assert len(answers) > 5
    chances = shorter(answers.a, answers.b)
    sure = chances != 0.5
    assert sure.any()
    np.testing.assert_array_equal(answers.label[sure], chances[sure])
    np.testing.assert_array_equal(answers.a.context_id, answers.b.context_id)

    several: Any = gym.make_vec(
        "prefgym/TextPrompts-v0", num_envs=4, rater=shorter, samples_per_prompt=2, **arguments
    )
    several.reset(seed=0)
    tokens = np.full((4, 6), 7)
    tokens[:, 2] = 1
    written = several.play(tokens, several.layout.mask(tokens))
    assert all(text.endswith("→ the the") for text in several.layout.text(written))
    pairs = several.sample_pairs(8, np.random.default_rng(0))
    assert len(several.compare(*pairs)) == 8


def test_without_a_rater_nobody_is_asked(folder: Path) -> None:
    arguments: dict[str, Any] = {"tokenizer": str(folder / "tokenizer"), "prompts": PROMPTS[:1]}
    env: Any = gym.make_vec("prefgym/TextPrompts-v0", num_envs=2, response_tokens=2, **arguments)
    env.reset(seed=0)
    tokens = np.array([[3, 4], [5, 6]])
    for _ in range(100):
        env.play(tokens, np.ones((2, 2), bool))
    assert len(env.preferences) == 0
    pair = env.sample_pairs(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"There is nobody to ask: .* made without rater="):
        env.compare(*pair)
    for rater in ("partial-return", "regret"):
        with pytest.raises(ValueError, match=rf"rater '{rater}' reads the true reward, which"):
            gym.make("prefgym/TextPrompts-v0", rater=rater, **arguments)
    assert gym.make("prefgym/TextPrompts-v0", rater="random", **arguments) is not None
    with pytest.raises(ValueError, match=r"no examples; give responses of your own"):
        text_files.task(**arguments).demonstrations(1, np.random.default_rng(0))


def test_rows_take_the_place_of_a_rater(folder: Path) -> None:
    from prefgym.converters.trl import from_trl
    from prefgym_agents.language import language_backend
    from prefgym_agents.reward_learning import RewardLearning

    env: Any = gym.make_vec(
        "prefgym/TextPrompts-v0",
        num_envs=8,
        samples_per_prompt=4,
        response_tokens=4,
        tokenizer=str(folder / "tokenizer"),
        prompts=PROMPTS,
    )
    row = {"prompt": PROMPTS[0], "chosen": "the rose", "rejected": "red red"}
    data = from_trl([row], layout=env.layout, meaning="human")
    policy = language_backend(env, seed=0, learning_rate=1e-3)
    learner = RewardLearning(policy, data=data, labels=0, sessions=2, start_steps=0, members=1)
    for _, metrics in learner.iterations(256):
        assert metrics["reward_model/pairs"] == 1.0
        assert "reward_model/true_return_corr" not in metrics  # nobody knows the truth
        assert all(np.isfinite(one) for one in metrics.values())
    assert learner.model.logits(data.a, data.b).item() > 0.0
    assert len(env.preferences) == 0
    for changes in ({"chosen": "the <eos>"}, {"prompt": "<pad> the"}):
        with pytest.raises(ValueError, match=r"token of padding \(0\) or of the end \(1\)"):
            from_trl([row | changes], layout=env.layout)


# --- bad input ----------------------------------------------------------------------------------


def test_prompts_that_are_none_are_refused(folder: Path) -> None:
    words = str(folder / "tokenizer")

    def refused(prompts: Any, message: str, **kwargs: Any) -> None:
        with pytest.raises(ValueError, match=message):
            text_files.task(words, prompts, **kwargs)

    refused([], r"no prompts in the list; give at least one")
    refused(lines(folder, []), r"no prompts in prompts.jsonl; give at least one")
    refused(parquet(folder, {"prompt": []}), r"no prompts in prompts.parquet")
    refused(
        lines(folder, [{"prompt": "red"}, {"prompt": " "}]), r"Prompt 1 of prompts.jsonl is ' '"
    )
    refused(lines(folder, [{"prompt": 3}]), r"Prompt 0 of prompts.jsonl is 3; give text")
    long = lines(folder, [{"prompt": "red"}, {"prompt": "red"}, {"prompt": "the red rose"}])
    refused(long, r"Prompt 2 of prompts.jsonl has 3 tokens.* room for 2", prompt_tokens=2)
    refused(lines(folder, [{"text": "red"}]), r"no column 'prompt', but text; say which")
    refused(lines(folder, ["red"]), r"no column 'prompt', but nothing")
    refused(parquet(folder, {"a": [1], "b": [2]}), r"no column 'prompt', but a, b; say which")
    (folder / "odd.jsonl").write_text('{"prompt": "red"}\n{"prompt"\n')
    refused(str(folder / "odd.jsonl"), r"Line 2 of odd.jsonl is no JSON")
    (folder / "odd.parquet").write_text("no")
    refused(str(folder / "odd.parquet"), r"odd.parquet is no Parquet file")
    (folder / "odd.csv").write_text("prompt\nred\n")
    refused(str(folder / "odd.csv"), r"odd.csv is no kind of file that is read here; give .jsonl")
    refused(str(folder / "none.jsonl"), r"There is no file '.*none.jsonl' with prompts")
    refused(PROMPTS, r"response_tokens is 0; give a whole number", response_tokens=0)
    refused(PROMPTS, r"prompt_tokens is 0; give a whole number", prompt_tokens=0)


def test_tokenizers_that_cannot_be_used_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no pad token, which is needed to fill rows up; set"):
        text_files.task(tokenizer(eos_token="<eos>"), PROMPTS)
    with pytest.raises(ValueError, match=r"no eos token, which is needed to end a response"):
        text_files.task(tokenizer(pad_token="<pad>"), PROMPTS)
    with pytest.raises(ValueError, match=r"no folder '.*nowhere' with a tokenizer"):
        text_files.task(str(folder / "nowhere"), PROMPTS)
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"The folder '.*empty' holds no tokenizer"):
        text_files.task(str(folder / "empty"), PROMPTS)
    env = text_files.raw(tokenizer=str(folder / "tokenizer"), prompts=PROMPTS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"There is no token 9; give an integer from 0 to 8"):
        env.step(9)


def test_what_the_id_needs_is_named() -> None:
    for make_one in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=r"TextPrompts-v0 has no default for tokenizer= and p"):
            make_one("prefgym/TextPrompts-v0")
        with pytest.raises(ValueError, match=r"has no default for tokenizer=; give what"):
            make_one("prefgym/TextPrompts-v0", prompts=["red"])
