"""Which pseudo-labels to trust: arrays in, arrays out, no training framework."""
