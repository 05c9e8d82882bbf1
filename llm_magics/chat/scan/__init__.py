"""Text that arrives in pieces: find markers in it, and read it with generators that wait for more."""
