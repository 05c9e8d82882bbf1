"""The report of what is installed and what to do next."""
