"""The link to the front end: deltas, questions, gauge."""
