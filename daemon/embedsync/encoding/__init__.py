"""From text to vectors: catalogue, tokenizer, batches, and the ONNX session that runs them."""
