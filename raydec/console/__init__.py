"""The terminal interface: arguments, progress, tables."""
