"""Ratios against peers and against what the hardware can do, each from one process run."""
