"""How good a model is, how sure that is, and which of two is better."""
