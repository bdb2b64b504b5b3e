"""Metrics of grounding."""

from .generalized_grounding_metric import GeneralizedGroundingMetric
from .grounding_metric import GroundingMetric

__all__ = ['GeneralizedGroundingMetric', 'GroundingMetric']
