"""The ways in which templates write arguments: each one is read, written and constrained."""
