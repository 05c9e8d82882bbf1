"""JSON schema, read once: dialect, normal form, and what is derived from it."""
