"""Reports that Matplotlib alone draws: pages, grids of images, the label report."""
