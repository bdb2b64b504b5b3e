"""The detector and its parts."""

from .box_head import GroundingBoxHead
from .clip_encoders import CLIPTextEncoder, CLIPVisualEncoder
from .clip_vg import CLIPVG
from .confidence_head import GroundingConfidenceHead
from .crop_text_clip import CropTextCLIP
from .data_preprocessor import GroundingDataPreprocessor
from .fusion import VisionLanguageFusion
from .grounding_tta_model import GroundingTTAModel

__all__ = [
    'CLIPVG',
    'CLIPTextEncoder',
    'CLIPVisualEncoder',
    'CropTextCLIP',
    'GroundingBoxHead',
    'GroundingConfidenceHead',
    'GroundingDataPreprocessor',
    'GroundingTTAModel',
    'VisionLanguageFusion',
]
