"""The threshold within one training: where it starts, ends and how it gets there."""

import numpy as np
import pytest

from projects.clip_vg_core.curriculum.selection import SHAPES, threshold_at

PROGRESS = np.linspace(0, 1, 41)
MOVING = [shape for shape in SHAPES if shape != 'constant']


def curve(shape, start=0.8, end=0.3):
    return np.array([threshold_at(p, start, end, shape) for p in PROGRESS])


@pytest.mark.parametrize('shape', MOVING)
def test_goes_from_start_to_end_and_never_back(shape):
    assert curve(shape)[[0, 20, 40]] == pytest.approx([0.8, 0.55, 0.3])
    assert (np.diff(curve(shape)) < 0).all()
    assert curve(shape)[::-1] == pytest.approx(curve(shape, 0.3, 0.8))


def test_linear_has_equal_steps_and_cosine_slow_ends():
    assert np.diff(curve('linear')) == pytest.approx(-0.5 / 40)
    steps = -np.diff(curve('cosine'))
    assert (np.diff(steps[:20]) > 0).all() and (np.diff(steps[20:]) < 0).all()


def test_constant_is_the_start_throughout():
    assert (curve('constant') == 0.8).all()


@pytest.mark.parametrize('shape', SHAPES)
def test_before_the_first_and_after_the_last_it_stands(shape):
    first, last = curve(shape)[[0, -1]]
    assert threshold_at(-0.5, 0.8, 0.3, shape) == first
    assert threshold_at(1.5, 0.8, 0.3, shape) == last


def test_an_unknown_shape_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'cubic'.*linear.*cosine.*constant"):
        threshold_at(0.5, 0.8, 0.3, 'cubic')
