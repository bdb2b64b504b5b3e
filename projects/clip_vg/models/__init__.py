"""The detector and its parts."""

from .box_head import GroundingBoxHead
from .clip_encoders import CLIPTextEncoder, CLIPVisualEncoder
from .clip_vg import CLIPVG
from .data_preprocessor import GroundingDataPreprocessor
from .fusion import VisionLanguageFusion

__all__ = [
    'CLIPVG',
    'CLIPTextEncoder',
    'CLIPVisualEncoder',
    'GroundingBoxHead',
    'GroundingDataPreprocessor',
    'VisionLanguageFusion',
]
