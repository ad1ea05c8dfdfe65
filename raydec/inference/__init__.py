"""A trained model at work on recordings."""
