"""Populations: who is speaking, and what that one cares about.

A head with K tastes gives every step K rewards. A population weighs them for whoever was asked:

    weighted   margin = Σ_k w_k Δ_k                  with w of the rater, or of the context
    mixture    P(a ≻ b) = Σ_k w_k σ(Δ_k)             one of K speaks, nobody knows which

where Δ_k is by how much taste k prefers the first segment. A mixture's margin is the log-odds of
that probability, so that the same losses fit it. The published systems differ in where w is from:

    Simplex        a row per rater, fitted (PAL)
    Amortised      inferred from the rater's other answers (VPL)
    HardClusters   all of one taste, chosen anew before each pass (MaxMin's EM)
    ContextGate    a network that reads the context (ArmoRM's gate; MiCRo's router as a mixture)
    Pooled         one row for everybody; as a mixture it is static
"""

from prefgym.models.populations.amortised import Amortised
from prefgym.models.populations.context import ContextGate
from prefgym.models.populations.population import Evidence, Population, PopulationHead
from prefgym.models.populations.rows import HardClusters, Pooled, Simplex

__all__ = [
    "Amortised",
    "ContextGate",
    "Evidence",
    "HardClusters",
    "Pooled",
    "Population",
    "PopulationHead",
    "Simplex",
]
