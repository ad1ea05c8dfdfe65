"""What is learned from labels: one file per target, and the list of them in ``registry.py``."""
