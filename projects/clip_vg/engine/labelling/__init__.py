"""Making pseudo-labels of many images: reading, distributing, writing, continuing."""
