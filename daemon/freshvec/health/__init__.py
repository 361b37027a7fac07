"""How it is, as values: status."""
