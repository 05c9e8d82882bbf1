"""One chat template: its bounded sandbox, the shaping of messages, the origin of its text."""
