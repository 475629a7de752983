"""Measure: models by shape with random weights, a torch reference, accuracy and time against torch."""
