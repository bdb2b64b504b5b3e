"""Models that are run for pseudo-labels: detectors, captioners, CLIP for attributes."""

from .models import LabelModels

__all__ = ['LabelModels']
