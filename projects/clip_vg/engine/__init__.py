"""Thin shells over the curriculum: scoring, hooks, the self-paced search."""

from .exact_resume_hook import ExactResumeHook
from .pseudo_label_reliability_hook import PseudoLabelReliabilityHook

__all__ = ['ExactResumeHook', 'PseudoLabelReliabilityHook']
