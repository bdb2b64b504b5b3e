"""Files of weights: what training runs leave, CLIP's files, the official layout."""
