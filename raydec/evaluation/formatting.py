"""Numbers of an evaluation as text."""

from __future__ import annotations


def number(value: float) -> str:
    """A number with four decimals; never ``-0.0000``."""
    return f"{round(value, 4) + 0.0:.4f}"


def interval(low: float, high: float) -> str:
    """Both ends of an interval as text."""
    return f"{number(low)} to {number(high)}"


def p_value_text(p_value: float, num_resamples: int) -> str:
    """A p-value as text; the smallest that the number of resamples allows is written as a bound."""
    smallest = 2 / (num_resamples + 1)
    return f"≤ {smallest:.2g}" if p_value <= smallest else f"{p_value:.2g}"
