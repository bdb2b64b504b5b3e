"""Samplers that decide which labels are shown, and which of them together."""

from .curriculum_sampler import CurriculumSampler
from .image_group_sampler import ImageGroupSampler, is_grouped

__all__ = ['CurriculumSampler', 'ImageGroupSampler', 'is_grouped']
