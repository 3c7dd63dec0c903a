"""Measurements of prefgym: speed against peers and limits, claims of papers, learning curves."""
