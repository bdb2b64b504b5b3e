"""Thin shells over the curriculum: scoring, hooks, the self-paced search."""

from .pseudo_label_reliability_hook import PseudoLabelReliabilityHook
from .sampler_state_hook import SamplerStateHook

__all__ = ['PseudoLabelReliabilityHook', 'SamplerStateHook']
