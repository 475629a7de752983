"""Passes over the SM task graph."""
