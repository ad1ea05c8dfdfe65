"""A run on disk, and what writes it."""
