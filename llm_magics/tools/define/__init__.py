"""A Python function becomes a tool: signature, schema, registry."""
