"""What raydec claims about speed and memory, runnable."""
