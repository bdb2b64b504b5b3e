"""Samplers of labels: which are drawn, and which of them as one sample."""

from .curriculum_sampler import CurriculumSampler
from .image_group_sampler import ImageGroupSampler, is_grouped

__all__ = ['CurriculumSampler', 'ImageGroupSampler', 'is_grouped']
