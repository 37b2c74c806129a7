"""Procedural videos with ground truth."""
