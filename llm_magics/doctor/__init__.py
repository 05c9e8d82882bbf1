"""What is installed, what this machine has, and what to do next."""
