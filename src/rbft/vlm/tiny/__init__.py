"""The files of the built-in model, a small vision-language model of the procedural world."""
