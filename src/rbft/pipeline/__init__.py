"""Running an experiment: all stages are read and checked, then those that are not done are run."""
