"""The commands, one file a group, and what they show on a terminal."""
