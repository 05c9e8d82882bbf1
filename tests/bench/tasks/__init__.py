"""Everyday tasks for whole turns: tools that run, what is asked, and what is right."""
