"""What happens to tokens: the order, the stream, the model, the engine, checkpoints."""
