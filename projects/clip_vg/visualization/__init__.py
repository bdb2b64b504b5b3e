"""Figures and reports of a curriculum."""
