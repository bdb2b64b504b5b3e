"""Transforms of image, box and expression together."""

from .color import PILColorJitter
from .expression_aware import ExpressionAwareChoice, TextAwareFlip
from .formatting import PackGroundingInputs
from .geometry import Letterbox, PILResize, ReferentCrop
from .loading import LoadGroundingImage

__all__ = [
    'ExpressionAwareChoice',
    'Letterbox',
    'LoadGroundingImage',
    'PILColorJitter',
    'PILResize',
    'PackGroundingInputs',
    'ReferentCrop',
    'TextAwareFlip',
]
