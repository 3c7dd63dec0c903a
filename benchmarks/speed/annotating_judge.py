"""The judge of ``benchmarks.speed.annotating``; another process imports it: nothing heavy here."""

from collections.abc import Sequence

from prefgym.judges import EndpointJudge, RuleJudge


class EndpointsTimeRulesWords:
    """Waits for an endpoint that says the same to everything, and answers by the rules."""

    name = "the rules, in an endpoint's time"

    def __init__(self, url: str) -> None:
        self.endpoint, self.rules = EndpointJudge(url, "m", key_variable=None), RuleJudge()

    @property
    def counts(self) -> dict[str, int]:
        """The endpoint's."""
        return self.endpoint.counts

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """The rules' answer to each prompt that the endpoint answered."""
        came = self.endpoint.answers(prompts)
        return [
            None if one is None else answer
            for one, answer in zip(came, self.rules.answers(prompts), strict=True)
        ]
