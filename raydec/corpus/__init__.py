"""Readers that convert a corpus on disk to a validated utterance table."""
