"""The commands, one file per group, and what they show on a terminal."""
