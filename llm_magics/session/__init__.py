"""The turn: history, tool loop, limits, map."""
