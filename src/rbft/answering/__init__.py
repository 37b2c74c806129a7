"""How a test video is answered: directly, after a rationale of the model's own, or by a mixture of both."""
