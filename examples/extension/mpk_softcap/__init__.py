"""Logit soft-capping for mpk-ir."""
