"""How it is, as values: status, watching it, waiting for it."""
