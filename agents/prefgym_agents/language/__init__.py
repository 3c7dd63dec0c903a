"""Language models as policies: one that writes, is judged and learns, as a backend of learners."""

from prefgym_agents.language.backend import LanguageBackend
from prefgym_agents.language.making import language_backend

__all__ = ["LanguageBackend", "language_backend"]
