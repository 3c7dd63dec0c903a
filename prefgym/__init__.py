"""prefgym: environments that emit preferences, and agents that learn from them.

Importing this registers every ``prefgym/...`` id with Gymnasium and loads nothing heavy.
"""

from prefgym.registration import ENVIRONMENTS, register

__version__ = "0.1.0"
__all__ = ["ENVIRONMENTS", "__version__", "register"]

register()
