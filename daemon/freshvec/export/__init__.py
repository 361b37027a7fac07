"""From weights to checked graphs."""
