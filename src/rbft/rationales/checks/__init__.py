"""Checks of rationales: each gives every rationale a score between 0 and 1, and 1 means nothing is wrong."""
