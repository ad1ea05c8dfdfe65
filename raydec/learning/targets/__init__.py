"""The targets that are learned from labels: one file per target, and their list in ``registry.py``."""
