"""Bench: how fast a model's graphs are on this machine, as a share of what the hardware can multiply."""
