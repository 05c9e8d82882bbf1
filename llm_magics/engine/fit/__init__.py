"""Whether a model file is sound, what it needs, and what is free."""
