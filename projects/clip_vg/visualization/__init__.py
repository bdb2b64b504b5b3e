"""Pictures of answers."""

from .result_grid import draw_grid, draw_sample

__all__ = ['draw_grid', 'draw_sample']
