"""The vision-language model: prompts, batches, encoding, scoring, generation, saving."""
