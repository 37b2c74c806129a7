"""The page and the figures a run leaves behind."""
