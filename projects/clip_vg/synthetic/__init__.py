"""Synthetic images and labels, and simulated predictions of other models."""
