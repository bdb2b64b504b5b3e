"""Hooks and wrappers of MMEngine, and scoring with a model."""

from .bfloat16_optim_wrapper import BFloat16OptimWrapper
from .exact_resume_hook import ExactResumeHook
from .grounding_visualizer import GroundingVisualizer
from .matmul_precision_hook import MatmulPrecisionHook
from .pseudo_label_reliability_hook import PseudoLabelReliabilityHook
from .run_check_hook import RunCheckHook
from .slim_checkpoint_hook import SlimCheckpointHook

__all__ = [
    'BFloat16OptimWrapper',
    'ExactResumeHook',
    'GroundingVisualizer',
    'MatmulPrecisionHook',
    'PseudoLabelReliabilityHook',
    'RunCheckHook',
    'SlimCheckpointHook',
]
