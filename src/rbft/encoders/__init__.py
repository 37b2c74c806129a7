"""Frozen video encoders of transformers: what a classifier beside the model is fitted to, as a control."""
