"""Zero-shot grounding without a model."""
