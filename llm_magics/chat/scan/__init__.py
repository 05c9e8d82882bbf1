"""Text that arrives in pieces: find markers in it, and read it with a cursor that can wait."""
