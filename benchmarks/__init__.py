"""Benchmarks behind raydec's claims about speed, memory and accuracy."""
