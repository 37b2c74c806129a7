"""`rbft label`: a local page on which a person gives clips their classes."""
