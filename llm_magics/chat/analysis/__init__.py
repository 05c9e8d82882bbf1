"""What a template writes, found by rendering it with and without calls and reasoning, and comparing."""
