"""What a run will cost in tokens, memory and time, before anything is loaded."""
