"""Everything that uses Ray; no other package imports it."""
