"""Samplers that decide which labels are shown, and which of them together."""

from .image_group_sampler import ImageGroupSampler

__all__ = ['ImageGroupSampler']
