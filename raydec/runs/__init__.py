"""Run directories, and the code that trains and records a run."""
