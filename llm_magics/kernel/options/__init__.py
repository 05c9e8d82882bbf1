"""A magic's line is read: words, braces, and the table of options."""
