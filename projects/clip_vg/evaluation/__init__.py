"""How good the answers are."""

from .grounding_metric import GroundingMetric

__all__ = ['GroundingMetric']
