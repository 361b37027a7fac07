"""Vectors that something else made: found, proved by a sample, taken over."""
