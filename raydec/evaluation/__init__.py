"""Scores of models with confidence intervals, and comparisons of models."""
