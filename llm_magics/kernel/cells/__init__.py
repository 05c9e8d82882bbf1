"""Notebook cells: what ran, and cells as tools."""
