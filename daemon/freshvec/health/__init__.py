"""How it is, as values: status, and waiting for it."""
