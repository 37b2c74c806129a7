"""Rationale-Bootstrapped Fine-Tuning for video classification (arXiv 2511.15923)."""

__version__ = "0.1.0"
