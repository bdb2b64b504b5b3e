"""Zero-shot grounding without a model: expressions are parsed, boxes compared."""
