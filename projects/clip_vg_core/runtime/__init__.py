"""Exported detectors: their folder, and what runs their graphs."""
