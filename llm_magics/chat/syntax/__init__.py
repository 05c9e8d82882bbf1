"""The syntax of a chat template, as values: markers and tags, the frame of a turn, the origin of text."""
