"""Learners and policy backends: one file per algorithm, read from top to bottom."""
