"""Names become files: catalogue, hub, wheels, other programs' caches."""
