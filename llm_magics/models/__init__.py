"""Models: what can be asked for a stream of ModelEvents."""
