"""Judges in one word, as the command line names them."""

from pathlib import Path

from prefgym.judges import EndpointJudge, Judge, RuleJudge

FORMS = "rules, openai:URL, openai:MODEL@URL or path:FOLDER"
"""What can be said."""


def judge_from(text: str) -> Judge:
    """The judge that a word names.

    =====================  =======================================================================
    ``rules``              :class:`prefgym.judges.RuleJudge`: no model, no network
    ``openai:URL``         the only model of an OpenAI-compatible endpoint
    ``openai:MODEL@URL``   one of its models; everything before the last ``@`` is the name
    ``path:FOLDER``        a causal language model of transformers on this machine
    =====================  =======================================================================

    Raises:
        ValueError: it names none; the message lists the forms.
        ImportError: transformers is wanted and not installed.

    Example:
        >>> judge_from("openai:llama-8b@http://localhost:8000/v1").model
        'llama-8b'
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "rules" and not rest:
        return RuleJudge()
    if kind == "openai" and rest:
        model, at, url = rest.rpartition("@")
        if at and (not model or ("://" in model and "://" not in url)):
            raise ValueError(
                "The judge's URL holds an @, or no model stands before it; wanted"
                " openai:URL or openai:MODEL@URL, and keys come from the environment only."
            )
        return EndpointJudge(url, model or None)
    if kind == "path" and rest:
        from prefgym_agents.language.judge import LocalJudge

        return LocalJudge(Path(rest).expanduser())
    raise ValueError(f"Unknown judge {text!r}; wanted {FORMS}.")


def named(text: str) -> str:
    """The same judge in a word that holds wherever and whenever it is read.

    An endpoint's only model is asked for and named, a folder has its whole path. A run remembers
    this word: whoever goes on with it asks the same model, whatever the endpoint serves then, and
    can begin while nobody answers there.

    Raises:
        ValueError: as :func:`judge_from`.
    """
    judge = judge_from(text)
    if isinstance(judge, EndpointJudge):
        judge.close()
        return f"openai:{judge.model}@{judge.url}"
    folder: Path | None = getattr(judge, "folder", None)
    return text if folder is None else f"path:{folder.resolve()}"
