"""Asking pictures."""

from .grounding_inferencer import GroundingInferencer

__all__ = ['GroundingInferencer']
