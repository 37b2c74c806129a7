"""What a training stage asks of the model."""
