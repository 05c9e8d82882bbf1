"""Markdown and HTML, rendered without trusting them."""
