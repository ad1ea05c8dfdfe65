"""Local and remote files, and atomic writes."""
