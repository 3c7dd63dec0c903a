"""Gymnasium environments whose true reward is known; the ``prefgym/`` ids hide it from agents.

The modules here return the truth: ``raw(...)`` one environment, ``raw_vector(num_envs, ...)`` its
native batched form. Import the module that you need; this front door loads none of them.
"""
