"""What results say: breakdown, comparison, calibration."""
