"""Preferences about texts, in the columns of TRL: ``prompt, chosen, rejected`` and the KTO form.

Source: the dataset formats of the TRL documentation (huggingface.co/docs/trl/dataset_formats).

Text becomes a segment whose context is the tokens of the prompt and whose actions are the tokens
of the completion; the prompt and the actions so far are the state, so there are no observations.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.names import lookup
from prefgym.segments import Segments
from prefgym.text import Layout

Row = dict[str, Any]
Encode = Callable[[str], Sequence[int]]
"""Text to tokens, such as ``tokenizer.encode``."""
Decode = Callable[[list[int]], str]
"""Tokens to text, such as ``tokenizer.decode``."""
Render = Callable[[Segments], tuple[str, str]]
"""One segment (a batch of one) to its prompt and its completion."""
Template = Callable[[Sequence[Mapping[str, str]]], str]
"""Chat messages, each with a role and a content, to one text."""

Content = str | list[Mapping[str, str]]
"""A prompt or a response: plain text, or chat messages."""

_FORMS = {"preference": "prompt, chosen, rejected", "unpaired": "prompt, completion, label"}
_TIES = {"drop": "left out", "double": "in both orders"}

PADDING = 0
"""Token behind a prompt that is shorter than the longest of its batch."""


def utf8_encode(text: str) -> list[int]:
    """The UTF-8 bytes of a text: a tokenizer for everybody.

    Raises:
        ValueError: a NUL character, which stands for padding here.
    """
    if "\0" in text:
        raise ValueError("the text holds a NUL character, which stands for padding; remove it.")
    return list(text.encode())


def utf8_decode(tokens: list[int]) -> str:
    """The inverse of :func:`utf8_encode`; bytes that are no UTF-8 become U+FFFD."""
    return bytes(tokens).decode(errors="replace")


def plain_text(messages: Sequence[Mapping[str, str]]) -> str:
    """The content of a single message; several ones as lines ``role: content``."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "".join(f"{message['role']}: {message['content']}\n" for message in messages)


def rendering(decode: Decode, padding: int = PADDING) -> Render:
    """How to show a segment of tokens as text, with the ``decode`` of its tokenizer."""

    def render(segment: Segments) -> tuple[str, str]:
        prompt = segment.context[0].tolist()
        while prompt and prompt[-1] == padding:
            prompt.pop()
        while prompt and prompt[0] == padding:
            prompt.pop(0)
        return decode(prompt), decode(segment.actions[0][segment.mask[0]].tolist())

    return render


def to_trl(
    preferences: Comparisons | PreferenceDataset,
    render: Render | None = None,
    form: str = "preference",
    messages: bool = False,
    ties: str = "drop",
    layout: Layout | None = None,
) -> list[Row]:
    """Rows that TRL trains on; write them with :func:`write_rows` or ``Dataset.from_list``.

    Args:
        preferences: what to convert. A label above ½ makes ``a`` the chosen one.
        render: shows one segment as prompt and completion; default: its tokens are UTF-8 bytes.
            Segments of control need one that describes them in words.
        form: "preference" gives ``prompt, chosen, rejected`` (DPO, reward modelling), "unpaired"
            gives ``prompt, completion, label`` (KTO), two rows for each comparison.
        messages: give chat messages instead of plain text.
        ties: TRL has none. "drop" leaves comparisons with label ½ out; "double" gives them in both
            orders, each with half of the weight.
        layout: of the text environment that the segments come from; its codec then shows them.

    Returns:
        Rows with the columns of TRL, and beside them ``preference`` (the probability of the chosen
        one), ``rater_id``, ``query_id``, ``weight`` and ``strength`` (None where nobody said),
        from which :func:`from_trl` restores the comparisons.
    """
    comparisons = _comparisons(preferences)
    if render is None and layout is not None:
        render = rendering(layout.codec.decode, layout.codec.pad)
    shown = render or rendering(utf8_decode)
    lookup(form, _FORMS, "form of TRL rows")
    lookup(ties, _TIES, "treatment of ties")
    rows: list[Row] = []
    for row, label in enumerate(comparisons.label.tolist()):
        if label == 0.5 and ties == "drop":
            continue
        one = comparisons.take(slice(row, row + 1))
        (prompt, first), (other_prompt, second) = _shown(one, shown, row)
        if prompt != other_prompt:
            raise ValueError(
                f"to_trl: the two segments of comparison {row} have different prompts, "
                f"{_cut(prompt)} and {_cut(other_prompt)}; TRL needs one, so compare responses to "
                "the same prompt or give a render that says what both share."
            )
        best, worst = (first, second) if label >= 0.5 else (second, first)
        share = 0.5 if label == 0.5 else 1.0
        rows += _rows(one, prompt, best, worst, share, form, messages)
        if label == 0.5:
            rows += _rows(one, prompt, worst, best, share, form, messages)
    return rows


def from_trl(
    source: Any,
    encode: Encode = utf8_encode,
    template: Template = plain_text,
    meaning: str = "unknown",
    padding: int = PADDING,
    layout: Layout | None = None,
) -> Comparisons:
    """Comparisons from rows in TRL's preference or KTO form, plain text or messages.

    The chosen response becomes ``a`` (label 1, or the column ``preference``). Rows without a
    prompt share one: the messages, or the text, with which both responses begin. KTO rows say
    good or bad of single completions: the first good and the first bad one of a prompt become a
    pair, and so on; where there are more of one kind, the other kind is used again from its
    beginning. A prompt with one kind only cannot be compared and is left out.

    Args:
        source: a list of dicts, a Hugging Face ``Dataset`` (one split), a pyarrow table, or the
            path of a ``.jsonl``, ``.json`` or ``.parquet`` file.
        encode: text to tokens.
        template: chat messages to text.
        meaning: what the labels mean.
        padding: token to put behind shorter prompts.
        layout: of a text environment: its codec encodes, shorter prompts are padded on the left,
            and a response that is shorter than the longest ends with the end token, so that the
            environment's backend can learn from the comparisons. ``encode`` and ``padding`` are
            then not used, chosen and rejected must differ in their tokens, and no text may hold
            the end token or padding, which are added here.

    Returns:
        Comparisons without observations, with integer actions ``[B, T]`` and equal ``context_id``
        for equal prompts. The columns ``rater_id``, ``query_id``, ``weight``, ``strength`` (or
        ``margin``, or ``score_chosen`` and ``score_rejected``) are used where present.

    Raises:
        ValueError: columns are missing or hold something else, or a row does not fit the layout;
            the message shows the row.
    """
    rows = read_rows(source)
    if not rows:
        raise ValueError("from_trl: got no rows; give at least one.")
    unpaired = "completion" in rows[0] and "chosen" not in rows[0]
    read = [(_unpaired if unpaired else _paired)(number, row) for number, row in enumerate(rows)]
    pairs = _matched(read, rows) if unpaired else read
    if not pairs:
        raise ValueError(
            "from_trl: no prompt has both a completion with label true and one with label false, "
            "so there is nothing to compare; train on these rows with a point loss instead."
        )
    texts = [[_text(part, template) for part in said] for _, said in pairs]
    if layout is not None:
        encode = layout.codec.encode
    tokens = [
        [_encoded(encode, text, number, rows[number]) for text in said]
        for (number, _), said in zip(pairs, texts, strict=True)
    ]
    if layout is not None:
        tokens = [
            _laid_out(layout, said, number, rows[number])
            for (number, _), said in zip(pairs, tokens, strict=True)
        ]
    prompts, chosen, rejected = ([row[column] for row in tokens] for column in range(3))
    asked = [said[0] for said in texts] if layout is None else [tuple(one) for one in prompts]
    ids = {prompt: at for at, prompt in enumerate(dict.fromkeys(asked))}
    steps = max(1, *map(len, chosen + rejected))
    if layout is None:
        context, _ = _packed(prompts, max(map(len, prompts)), padding)
    else:
        context, steps = layout.prompts([one.tolist() for one in prompts]), layout.response_tokens
    a, b = (
        Segments(
            *_packed(side, steps, 0),
            context=context,
            context_id=np.array([ids[prompt] for prompt in asked], np.int64),
        )
        for side in (chosen, rejected)
    )
    return Comparisons(a=a, b=b, meaning=meaning, **_columns([(n, rows[n]) for n, _ in pairs]))


def read_rows(source: Any) -> list[Row]:
    """The rows of a table: a list of dicts, a pyarrow table, a file, or any iterable of dicts.

    Raises:
        ValueError: it is none of these, or a damaged file.
    """
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source))
    if isinstance(source, pa.Table):
        return list(source.to_pylist())
    if isinstance(source, Mapping):
        raise ValueError(
            f"from_trl: got a mapping with the keys {', '.join(map(str, source))}; give one split "
            "of it, such as source['train'], or a list of dicts."
        )
    rows = list(source)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"from_trl: row {number} is {_cut(row)}, wanted a dict from column to value; "
                "a pandas frame gives those with frame.to_dict('records')."
            )
    return rows


def write_rows(rows: Sequence[Row], path: Path | str) -> None:
    """Write rows to a ``.jsonl`` or ``.parquet`` file, complete or not at all."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    if target.suffix == ".jsonl":
        temporary.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
    elif target.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
    else:
        raise ValueError(
            f"{target} ends in {target.suffix!r}; choose a name that ends in .jsonl or .parquet."
        )
    os.replace(temporary, target)


def _comparisons(preferences: Comparisons | PreferenceDataset) -> Comparisons:
    if isinstance(preferences, PreferenceDataset):
        preferences = preferences.comparisons
    return preferences.replace(a=preferences.a.numpy(), b=preferences.b.numpy())


def _shown(one: Comparisons, render: Render, row: int) -> list[tuple[str, str]]:
    try:
        return [render(one.a), render(one.b)]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"to_trl: comparison {row} cannot be shown as text ({error}); give a render that turns "
            "one segment into a prompt and a completion."
        ) from error


def _rows(
    one: Comparisons,
    prompt: str,
    chosen: str,
    rejected: str,
    share: float,
    form: str,
    messages: bool,
) -> list[Row]:
    """The rows of one comparison in one order; ``share`` of its weight is theirs."""
    said, label = float(one.strength[0]), float(one.label[0])
    extra = {
        "preference": max(label, 1.0 - label),
        "rater_id": int(one.rater_id[0]),
        "query_id": int(one.query_id[0]),
        "weight": float(one.weight[0]) * share,
        "strength": None if np.isnan(said) else said,
    }
    asked = [{"role": "user", "content": prompt}] if messages else prompt
    best, worst = (
        [{"role": "assistant", "content": text}] if messages else text
        for text in (chosen, rejected)
    )
    if form == "preference":
        return [{"prompt": asked, "chosen": best, "rejected": worst, **extra}]
    return [
        {"prompt": asked, "completion": text, "label": good, **extra}
        for text, good in ((best, True), (worst, False))
    ]


def _read_file(path: Path) -> list[Row]:
    try:
        if path.suffix == ".parquet":
            return list(pq.read_table(path).to_pylist())
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return read_rows(json.loads(text))
    except (OSError, pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); check the path and the file."
        ) from error
    if path.suffix != ".jsonl":
        raise ValueError(f"{path} ends in {path.suffix!r}; wanted .jsonl, .json or .parquet.")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number} is no JSON ({error}): {_cut(line)}; repair or remove it."
            ) from error
    return read_rows(rows)


def _cut(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 300 else shown[:300] + "…"


def _refuse(number: int, row: Mapping[str, Any], problem: str) -> ValueError:
    return ValueError(f"from_trl: row {number} {problem}; the row is {_cut(dict(row))}.")


def _content(number: int, row: Mapping[str, Any], column: str) -> Content:
    """A text or a list of messages, of the right kind."""
    if row.get(column) is None:
        raise _refuse(
            number,
            row,
            f"has no {column!r}, and TRL wants prompt, chosen, rejected or prompt, completion, "
            f"label (its columns are {', '.join(map(str, row))})",
        )
    value = row[column]
    if isinstance(value, str):
        return value
    messages = isinstance(value, Sequence) and all(
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in value
    )
    if not messages:
        raise _refuse(
            number,
            row,
            f"has something else than text, or messages with role and content, as {column!r}",
        )
    return list(value)


def _paired(number: int, row: Mapping[str, Any]) -> tuple[int, tuple[Content, Content, Content]]:
    """Number, and prompt, chosen and rejected of a row of the preference form."""
    chosen, rejected = (_content(number, row, column) for column in ("chosen", "rejected"))
    if "prompt" in row:
        prompt = _content(number, row, "prompt")
        if len({isinstance(part, str) for part in (prompt, chosen, rejected)}) > 1:
            raise _refuse(number, row, "mixes plain text and messages")
        return number, (prompt, chosen, rejected)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise _refuse(number, row, "mixes plain text and messages")
    shared = len(
        list(takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
    )
    if isinstance(chosen, str) and chosen[shared - 1 : shared] == " ":
        shared -= 1  # a space belongs to the word behind it
    return number, (chosen[:shared], chosen[shared:], rejected[shared:])


def _unpaired(number: int, row: Mapping[str, Any]) -> tuple[int, tuple[Content, Content, Content]]:
    """Number, and prompt, completion and nothing of a row of the KTO form."""
    if row.get("label") not in (True, False):
        raise _refuse(number, row, "has no label that is true or false")
    return number, (_content(number, row, "prompt"), _content(number, row, "completion"), "")


def _matched(
    texts: Iterable[tuple[int, tuple[Content, Content, Content]]], rows: Sequence[Row]
) -> list[tuple[int, tuple[Content, Content, Content]]]:
    """Good completions of a prompt beside bad ones; the number is that of the good row."""
    kinds: dict[str, dict[bool, list[tuple[int, Content]]]] = {}
    prompts: dict[str, Content] = {}
    for number, (prompt, completion, _) in texts:
        key = json.dumps(prompt)
        prompts[key] = prompt
        both = kinds.setdefault(key, {True: [], False: []})
        both[bool(rows[number]["label"])].append((number, completion))
    matched = []
    for key, both in kinds.items():
        good, bad = both[True], both[False]
        for turn in range(max(len(good), len(bad)) if good and bad else 0):
            number, chosen = good[turn % len(good)]
            matched.append((number, (prompts[key], chosen, bad[turn % len(bad)][1])))
    return matched


def _text(content: Content, template: Template) -> str:
    return content if isinstance(content, str) else template(content)


def _encoded(encode: Encode, text: str, number: int, row: Mapping[str, Any]) -> np.ndarray:
    try:
        tokens = np.asarray(encode(text))
    except ValueError as error:
        raise _refuse(number, row, f"cannot be encoded: {error}") from error
    if tokens.size == 0:
        return np.zeros(0, np.int64)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise _refuse(
            number,
            row,
            f"was encoded to {tokens.dtype}{list(tokens.shape)} instead of a list of token ids",
        )
    return tokens.astype(np.int64)


def _laid_out(
    layout: Layout, said: list[np.ndarray], number: int, row: Mapping[str, Any]
) -> list[np.ndarray]:
    """Prompt, chosen and rejected as a layout has them: responses with their end."""
    prompt, *responses = said
    _check_plain(layout, said, number, row)
    if not 0 < len(prompt) <= layout.prompt_tokens:
        raise _refuse(
            number, row, f"has a prompt of {len(prompt)} tokens; wanted 1 to {layout.prompt_tokens}"
        )
    for response in responses:
        if len(response) > layout.response_tokens:
            raise _refuse(
                number,
                row,
                f"has a response of {len(response)} tokens; wanted at most"
                f" {layout.response_tokens}",
            )
    end = np.array([layout.codec.eos], np.int64)
    whole = [
        one if len(one) == layout.response_tokens else np.append(one, end) for one in responses
    ]
    return [prompt, *whole]


def _check_plain(
    layout: Layout, said: list[np.ndarray], number: int, row: Mapping[str, Any]
) -> None:
    """Refuse tokens that are no text, and a preference of a response to itself."""
    prompt, chosen, rejected = said
    pad, eos = layout.codec.pad, layout.codec.eos
    # An end may stand within a prompt: chat templates close every message with one.
    fills = pad != eos and (prompt == pad).any()
    if fills or np.isin(np.concatenate([chosen, rejected]), (pad, eos)).any():
        raise _refuse(
            number,
            row,
            f"has the token of padding ({pad}) or of the end ({eos}) in a text; leave it out, since"
            " both are added here",
        )
    if np.array_equal(chosen, rejected) and row.get("preference", 1.0) != 0.5:
        raise _refuse(
            number,
            row,
            "has the same text as chosen and as rejected, once they are tokens, which says nothing;"
            " drop it, or call it a tie by preference=0.5",
        )


def _packed(lists: Sequence[np.ndarray], width: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as one array ``[B, width]``, and where they have tokens."""
    lengths = np.array([len(one) for one in lists])
    mask = np.arange(width) < lengths[:, None]
    packed = np.full(mask.shape, padding, np.int64)
    packed[mask] = np.concatenate([np.zeros(0, np.int64), *lists])
    return packed, mask


def _columns(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """What the extra columns say of each comparison."""
    return {
        "label": _numbers(rows, "preference", 1.0),
        "weight": _numbers(rows, "weight", 1.0),
        "strength": _strength(rows),
        "rater_id": _numbers(rows, "rater_id", 0).astype(np.int64),
        "query_id": _numbers(rows, "query_id", np.arange(len(rows))).astype(np.int64),
    }


def _strength(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> np.ndarray:
    scores = [_numbers(rows, f"score_{one}", np.nan) for one in ("chosen", "rejected")]
    margin = _numbers(rows, "margin", scores[0] - scores[1])
    return _numbers(rows, "strength", margin)


def _numbers(
    rows: Sequence[tuple[int, Mapping[str, Any]]], column: str, default: Any
) -> np.ndarray:
    """A column of numbers, ``[B]``, with the default where a row has none."""
    values = np.array(np.broadcast_to(default, len(rows)), np.float64)
    for place, (number, row) in enumerate(rows):
        value = row.get(column)
        if value is None:
            continue
        if not isinstance(value, int | float):
            raise _refuse(number, row, f"has no number as {column!r}")
        values[place] = value
    return values
