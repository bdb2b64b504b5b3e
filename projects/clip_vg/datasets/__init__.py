"""Referring-expression data: readers, data set, transforms, samplers."""

from .refexp_dataset import RefExpDataset
from .samplers import CurriculumSampler, ImageGroupSampler
from .transforms import *  # noqa: F403
from .transforms import __all__ as _transforms

__all__ = ['CurriculumSampler', 'ImageGroupSampler', 'RefExpDataset', *_transforms]
