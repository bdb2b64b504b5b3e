"""Transforms of image, box and expression together."""

from .choice import ExpressionAwareChoice
from .color import PILColorJitter
from .crop import ReferentCrop
from .flip import TextAwareFlip
from .formatting import PackGroundingInputs
from .letterbox import Letterbox
from .loading import LoadGroundingImage
from .resize import PILResize

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
