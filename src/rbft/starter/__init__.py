"""From a folder of clips to an experiment file: what is recognised, and what is written."""
