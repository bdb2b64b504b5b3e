"""Pictures of answers."""

from projects.clip_vg_core.visualization.result_grid import draw_grid, draw_sample

__all__ = ['draw_grid', 'draw_sample']
