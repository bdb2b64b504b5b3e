"""Which pseudo-labels to select: scores, thresholds and their search."""
