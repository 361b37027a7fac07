"""What may be wrong with it, where it runs, and the command that mends it."""
