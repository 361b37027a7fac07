"""What a model is: its card, and its exported files."""
