"""Serving on CPUs: export, quantisation, and predictions of an exported folder."""

from .served_clip_vg import ServedCLIPVG

__all__ = ['ServedCLIPVG']
