"""Inference: expressions grounded in images."""

from .grounding_inferencer import GroundingInferencer

__all__ = ['GroundingInferencer']
