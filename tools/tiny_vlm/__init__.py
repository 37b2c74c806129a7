"""Pre-training and measuring of the built-in model."""
