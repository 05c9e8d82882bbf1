"""Executing calls: output is captured, time limited, and interrupts held back."""
