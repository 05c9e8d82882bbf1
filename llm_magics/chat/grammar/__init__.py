"""Grammar text for llguidance: its rules, and JSON values under a schema."""
