"""The judge in this process, on models of a thousand weights; and judges by one word."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from prefgym.judges import Cached, EndpointJudge, Judge, RuleJudge
from prefgym.judges.prompts import HELPFUL, judge_prompt, verdict
from prefgym.text import Layout, Vocabulary
from prefgym_agents import configs
from prefgym_agents.judges import judge_from, named
from prefgym_agents.language import models
from prefgym_agents.language.judge import LocalJudge
from tests.endpoint_server import MODEL, endpoint

WORDS = Vocabulary.of("Goal:", "Message:", "You", "open", "the", "door", "door.", "key", "yes")
LAYOUT = Layout(WORDS, 600, 8)
CAPTIONS = ["You open the door.", "You open the key", "key", "yes yes yes You open"]
PROMPTS = [judge_prompt("open the door", one) for one in CAPTIONS]


def made(seed: int = 0, kind: str = "gpt2") -> tuple[Any, Any]:
    config = models.tiny_config(LAYOUT, kind, width=16, heads=2)
    model = models.causal_model(config, LAYOUT, seed=seed)
    with torch.no_grad():  # sharper choices than those of fresh weights
        for one in model.parameters():
            one.mul_(4.0)
    return model, models.tokenizer(WORDS)


def likeliest(model: Any, tokenizer: Any, prompt: str, steps: int) -> list[int]:
    """The greedy continuation, one token after the other, without a cache or a batch."""
    tokens = tokenizer(prompt)["input_ids"]
    written: list[int] = []
    for _ in range(steps):
        logits = model(input_ids=torch.tensor([tokens + written])).logits[0, -1]
        written.append(int(logits.argmax()))
        if written[-1] == tokenizer.eos_token_id:
            break
    return written


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_answers_are_the_likeliest_tokens_whatever_the_batch(kind: str) -> None:
    ended = 0
    for seed in range(2):
        model, tokenizer = made(seed, kind)
        wanted: list[str | None] = []
        for prompt in PROMPTS:
            tokens = likeliest(model, tokenizer, prompt, 4)
            end = tokens[-1] == tokenizer.eos_token_id
            text = tokenizer.decode(tokens[:-1] if end else tokens, skip_special_tokens=True)
            wanted.append(text if end else None)
        for batch in (1, 3):
            judge = LocalJudge(model, tokenizer, batch=batch, new_tokens=4)
            assert judge.answers(PROMPTS) == wanted
        assert judge.counts["unfinished"] == wanted.count(None)
        ended += len(wanted) - wanted.count(None)
    assert judge.answers([]) == []
    assert 0 < ended < 8


class Wordy(transformers.PreTrainedTokenizerFast):
    """Words in which an answer can be given; token 4 is a line break."""

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        said = {2: "It helps.", 3: "\nANSWER: yes", 4: "\n", 5: " ANSWER: no"}
        return "".join(said.get(int(one), "") for one in token_ids)

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        return [self.decode(one) for one in sequences]


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        ([2, 3, 1], "It helps.\nANSWER: yes"),
        ([2, 3, 4, 5, 5, 5], "It helps.\nANSWER: yes"),  # it writes on
        ([2, 3, 2, 2, 2, 2], None),  # cut off in the line of the verdict
        ([2, 2, 2, 2, 2, 2], None),
        ([2, 1], "It helps."),
    ],
)
def test_an_answer_ends_with_its_verdict(tokens: list[int], wanted: str | None) -> None:
    model, tokenizer = made()
    tokenizer.__class__ = Wordy
    table = torch.zeros(1000, WORDS.size)
    table[torch.arange(len(tokens)), torch.tensor(tokens)] = 1.0
    prompt_tokens = len(tokenizer(PROMPTS[0])["input_ids"])

    def forced(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        # The model is made to say the tokens, one at every step.
        output.logits = table[forced.step][None, None].expand(*output.logits.shape[:2], -1)  # type: ignore[attr-defined]
        forced.step += 1  # type: ignore[attr-defined]
        return output

    forced.step = 0  # type: ignore[attr-defined]
    handle = model.register_forward_hook(forced, with_kwargs=True)
    judge = LocalJudge(model, tokenizer, new_tokens=6)
    (answer,) = judge.answers(PROMPTS[:1])
    handle.remove()
    assert prompt_tokens > 100
    assert answer == wanted
    assert judge.counts["unfinished"] == (wanted is None)
    assert (verdict(answer, HELPFUL) == 1.0) == (3 in tokens and wanted is not None)


def test_a_folder_is_read_when_it_is_asked_and_only_its_path_is_sent(tmp_path: Path) -> None:
    model, tokenizer = made()
    models.save(model, WORDS, tmp_path)
    judge = judge_from(f"path:{tmp_path}")
    assert isinstance(judge, LocalJudge)
    assert isinstance(judge, Judge)
    judge.device, judge.new_tokens = "cpu", 6
    sent = pickle.dumps(judge)
    assert len(sent) < 2000
    same = LocalJudge(model, tokenizer, new_tokens=6)
    assert pickle.loads(sent).answers(PROMPTS) == judge.answers(PROMPTS) == same.answers(PROMPTS)
    assert len(pickle.dumps(judge)) < 2000
    assert same.name != LocalJudge(*made(seed=1), new_tokens=6).name
    assert same.name != LocalJudge(model, tokenizer, new_tokens=7).name
    cached = Cached(judge, tmp_path / "answers.db")
    assert cached.answers(PROMPTS) == judge.answers(PROMPTS)
    again = Cached(pickle.loads(sent), tmp_path / "others.db")
    said = dict.fromkeys(PROMPTS, "ANSWER: yes")
    assert again.cache.keep(again.name, said) == said
    assert again.answers(PROMPTS) == list(said.values())
    assert again.answers([]) == []
    assert again.judge._model is None  # what is known needs no model


def test_a_folder_has_its_name_without_being_read(tmp_path: Path) -> None:
    for place, seed in (("one", 0), ("copy", 0), ("other", 1)):
        model, _ = made(seed)
        models.save(model, WORDS, tmp_path / place)
    one, copy, other = (LocalJudge(tmp_path / name) for name in ("one", "copy", "other"))
    assert one.name == copy.name != other.name
    assert one.name != LocalJudge(tmp_path / "one", new_tokens=7).name
    assert one.name != LocalJudge(tmp_path / "one", dtype="bfloat16").name
    assert one._model is one._tokenizer is None
    with (tmp_path / "copy" / "tokenizer_config.json").open("a") as file:
        file.write(" ")
    assert LocalJudge(tmp_path / "copy").name != one.name


def test_answers_come_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, written = LocalJudge(*made(), batch=3, new_tokens=4), []
    write = judge._write
    monkeypatch.setattr(judge, "_write", lambda rows: written.append(len(rows)) or write(rows))
    coming = judge.stream(PROMPTS)
    first = next(coming)
    assert written == [3]
    rest = dict([first, *coming])
    assert written == [3, 1]
    assert [rest[number] for number in range(4)] == LocalJudge(*made(), new_tokens=4).answers(
        PROMPTS
    )


def test_a_chat_model_is_spoken_to_in_its_own_form() -> None:
    model, tokenizer = made()
    plain = LocalJudge(model, tokenizer, new_tokens=6).name
    tokenizer.chat_template = "{% for m in messages %}yes {{ m.content }} key{% endfor %}"
    chat = LocalJudge(model, tokenizer, new_tokens=6)
    seen: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(int(kwargs["input_ids"][0, 0])), with_kwargs=True
    )
    chat.answers(PROMPTS[:1])
    hook.remove()
    assert seen[0] == WORDS.encode("yes")[0]
    assert chat.name != plain


def test_a_prompt_longer_than_the_context_is_counted_and_said_once() -> None:
    model, tokenizer = made()
    long = judge_prompt("open the door", "key " * 600)
    judge = LocalJudge(model, tokenizer, new_tokens=6)
    with pytest.warns(UserWarning, match=r"more than the 608 that the model reads"):
        assert judge.answers([long]) == [None]
    judge.answers([PROMPTS[0], long])
    assert judge.counts["too_long"] == 2


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no language model"):
        judge_from(f"path:{tmp_path}")
    model, tokenizer = made()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no tokenizer"):
        LocalJudge(tmp_path)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        LocalJudge(model)
    with pytest.raises(ValueError, match="batch is 0"):
        LocalJudge(model, tokenizer, batch=0)


def test_judges_by_one_word() -> None:
    assert judge_from("rules") == RuleJudge()
    one = judge_from("openai:@cf/meta/llama:8b@http://localhost:8000")
    assert isinstance(one, EndpointJudge)
    assert (one.model, one.url) == ("@cf/meta/llama:8b", "http://localhost:8000/v1")
    with endpoint() as server:
        only = judge_from(f"openai:{server.url}/")
        assert isinstance(only, EndpointJudge)
        assert (only.model, only.url) == (MODEL, server.url)
        only.close()


def test_a_judge_that_is_named_with_its_model_is_found_while_nobody_answers() -> None:
    for model in (MODEL, "@cf/meta/llama:8b", "s3://bucket/llama"):
        with endpoint(models=(model,)) as server:
            word = named(f"openai:{server.url}/")
        assert word == f"openai:{model}@{server.url}" == named(word)
        found = judge_from(word)
        assert isinstance(found, EndpointJudge)
        assert (found.model, found.url) == (model, server.url)
    assert named("rules") == "rules"


@pytest.mark.parametrize("text", ["", "rule", "rules:2", "openai:", "path:", "http://there/v1"])
def test_another_word_names_no_judge(text: str) -> None:
    with pytest.raises(ValueError, match=r"Unknown judge .* wanted rules, openai:URL"):
        judge_from(text)


def test_a_url_with_a_password_names_no_judge_and_is_not_shown() -> None:
    for text in ("openai:http://me:secret@there/v1", "openai:m@http://me:secret@there/v1"):
        with pytest.raises(ValueError, match="keys come from the environment only") as error:
            judge_from(text)
        assert "secret" not in str(error.value)


def test_a_run_remembers_whole_paths(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.save(made()[0], WORDS, run_folder / "model")
    monkeypatch.chdir(run_folder)
    given = configs.IntrinsicRun(judge="path:model", goal="open", language_model=Path("model"))
    found, place = configs.lasting(given), Path("model").resolve()
    assert found == replace(given, judge=f"path:{place}", language_model=place)
    assert configs.lasting(found) == found
    absent = replace(given, judge="rules", language_model=Path("nowhere"))
    assert configs.lasting(absent) == absent  # what builds the run says that it is not there
