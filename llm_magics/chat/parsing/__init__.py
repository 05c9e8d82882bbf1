"""The streaming parser: text in, events out."""
