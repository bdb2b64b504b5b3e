"""The detector and its parts."""

from .box_head import GroundingBoxHead
from .clip_encoders import CLIPTextEncoder, CLIPVisualEncoder
from .clip_vg import CLIPVG
from .confidence_head import GroundingConfidenceHead
from .crop_text_clip import CropTextCLIP
from .data_preprocessor import GroundingDataPreprocessor
from .fusion import VisionLanguageFusion
from .grounding_tta_model import GroundingTTAModel
from .proposals import DetectorProposals, FileProposals, GridProposals
from .zero_shot_grounding import ZeroShotGrounding

__all__ = [
    'CLIPVG',
    'CLIPTextEncoder',
    'CLIPVisualEncoder',
    'CropTextCLIP',
    'DetectorProposals',
    'FileProposals',
    'GridProposals',
    'GroundingBoxHead',
    'GroundingConfidenceHead',
    'GroundingDataPreprocessor',
    'GroundingTTAModel',
    'VisionLanguageFusion',
    'ZeroShotGrounding',
]
