"""Tokens that are guessed and verified together: prompt lookup, draft models, exactness."""
