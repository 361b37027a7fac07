"""Several workers as one: processes of this machine, or actors of another engine."""
