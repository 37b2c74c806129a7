"""`rbft serve`: a finished run behind a local page and a small JSON interface."""
