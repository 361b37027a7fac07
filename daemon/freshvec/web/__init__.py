"""What answers over HTTP: embeddings, metrics, the page."""
