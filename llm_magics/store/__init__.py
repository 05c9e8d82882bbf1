"""Finding and fetching model files: catalogue, hub, wheels, other programs' caches."""
