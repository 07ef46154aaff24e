"""Sums numbers that arrive over a bus."""
