"""Models that are run for pseudo-labels: detectors, captioners, CLIP for crops."""

from .models import LabelModels

__all__ = ['LabelModels']
