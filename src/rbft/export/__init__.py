"""`rbft export`: a finished run as a folder that plain transformers loads, checked before it is there."""
