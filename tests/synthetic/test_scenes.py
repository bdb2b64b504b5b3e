"""Painted shapes: a box is where its object is."""

import numpy as np
import pytest

from projects.clip_vg.synthetic.expressions import Shape
from projects.clip_vg.synthetic.scenes import COLORS, draw


@pytest.mark.parametrize(
    'kind', ['circle', 'square', 'triangle', 'star', 'cross', 'diamond']
)
def test_a_box_is_where_the_colour_is(kind):
    item = Shape(kind, 'red', 'small', (31, 17, 61, 47))
    empty = np.asarray(draw((100, 80), [], np.random.default_rng(0)), int)
    image = np.asarray(draw((100, 80), [item], np.random.default_rng(0)), int)
    rows, columns = np.nonzero(np.abs(image - empty).sum(2) > 60)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(found - item.box).max() <= 1.5
    middle = image[30:36, 42:50].reshape(-1, 3).mean(0)
    assert np.abs(middle - COLORS['red']).max() < 40
