"""The magics, one file each."""
