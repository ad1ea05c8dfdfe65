"""What a terminal sees: arguments, progress, tables."""
