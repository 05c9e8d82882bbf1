"""Models: what can be asked for a stream of ModelEvents, and where their files are found."""
