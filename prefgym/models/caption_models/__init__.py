"""Reward models of captions: what a judge said of texts, as rewards of texts.

One face: ``learn(labels, seen)`` once in each update of the policy, ``rewards(captions)``,
``wants(captions, waiting)`` (what to have judged), ``get_state`` and ``set_state``; ``kind`` says
what is asked ("helpful": captions, "ranking": pairs).
"""

from prefgym.models.caption_models.encoders import CharactersEncoder, WordsEncoder
from prefgym.models.caption_models.judged import Classification, Retrieval
from prefgym.models.caption_models.ranking import Ranking, Supply
from prefgym.models.caption_models.scores import CaptionScores, Online

__all__ = [
    "CaptionScores",
    "CharactersEncoder",
    "Classification",
    "Online",
    "Ranking",
    "Retrieval",
    "Supply",
    "WordsEncoder",
]
