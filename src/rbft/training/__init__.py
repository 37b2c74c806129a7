"""The Lightning side: module, callbacks, optimiser, checkpoints."""
