"""Front ends, the memory-mapped feature store, and chunks of its frames."""
