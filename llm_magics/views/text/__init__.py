"""Plain-text views: a terminal, a saved cell's text, one line of a call."""
