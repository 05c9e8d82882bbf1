"""Masks likely secrets in saved outputs."""
