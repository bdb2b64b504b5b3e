"""Measures of a test run's results: breakdown, comparison, calibration."""
