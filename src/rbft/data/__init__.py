"""From a data set's files to batches."""
