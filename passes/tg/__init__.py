"""Passes on the tensor graph."""
