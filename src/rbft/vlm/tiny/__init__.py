"""The built-in model: a small vision-language model of the procedural world, and how it is made."""
