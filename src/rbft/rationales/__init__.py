"""Rationales: prompting for them, storing them, reading them back."""
