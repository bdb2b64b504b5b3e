"""Boxes on images: where they are drawn, in which colour, and what is said of them."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from projects.clip_vg_core.metrics.generalized import MatchingRule
from projects.clip_vg_core.metrics.results_file import write_results
from projects.clip_vg_core.metrics.set_results import read_set_results
from projects.clip_vg_core.visualization.boxes import draw_box
from projects.clip_vg_core.visualization.result_grid import (
    draw_grid,
    draw_labels,
    draw_results,
)

from ...helpers import ROOT

# An image of 32 x 24 pixels is drawn 10 times larger.
BOX, OTHER, TIMES = [4.0, 2.0, 20.0, 12.0], [1.0, 1.0, 9.0, 9.0], 10


@pytest.fixture
def results(tmp_path):
    path = tmp_path / 'image.png'
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(path)
    common = dict(image=str(path), gt_bbox=OTHER, bbox=BOX)
    return [
        dict(common, text='left man', iou=0.75),
        dict(common, text='costs $5 or $6', iou=0.48),
    ]


def extent(pixels, color):
    """Xyxy of the pixels of a colour."""
    near = np.abs(np.asarray(pixels) - 255 * np.array(to_rgb(color))).max(-1) < 2
    rows, columns = np.nonzero(near)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize('measure', ['IoU', 'reliability'])
def test_every_result_is_drawn_with_its_boxes_and_its_value(results, measure):
    figure = draw_grid(results, 'results', names=('ours', 'label'), measure=measure)
    shown = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in shown]
    assert titles == [
        f'"left man"\n{measure} 0.75',
        f'"costs $5 or $6"\n{measure} 0.48',
    ]
    (legend,) = figure.legends
    labels = {
        text.get_text(): line.get_color()
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert list(labels) == [
        f'ours, {measure} >= 0.5',
        f'ours, {measure} < 0.5',
        'label',
    ]
    hit, miss, true = labels.values()
    for axes, color, others in zip(shown, (hit, miss), (miss, hit), strict=True):
        pixels = axes.images[0].get_array()
        scale = max(pixels.shape) / 32
        np.testing.assert_allclose(
            extent(pixels, color), np.multiply(BOX, scale), atol=1
        )
        left, top, _, _ = extent(pixels, true)
        np.testing.assert_allclose((left, top), np.multiply(OTHER[:2], scale), atol=1)
        with pytest.raises(ValueError, match='zero-size'):
            extent(pixels, others)
    plt.close(figure)


def test_of_two_runs_the_first_line_is_broken_and_one_true_box_is_drawn(results):
    first, second = results  # hit and miss
    second = dict(second, bbox=[6.0, 14.0, 30.0, 22.0])
    image = draw_results(first['image'], [first, second], side=32 * TIMES)
    assert image.size == (32 * TIMES, 24 * TIMES)
    colors = '#00c853', '#ff1744'
    shares = []
    for color, result in zip(colors, (first, second), strict=True):
        left, _, right, bottom = (int(edge * TIMES) for edge in result['bbox'])
        line = np.asarray(image)[bottom - 1, left:right]
        shares.append((np.abs(line - 255 * np.array(to_rgb(color))) < 2).all(-1).mean())
    assert 0.5 < shares[0] < 0.9
    assert shares[1] == 1


def test_any_number_of_true_boxes_is_drawn(results):
    first = dict(results[0])
    one = draw_results(first['image'], [first], side=32 * TIMES)
    boxes = [first.pop('gt_bbox'), [22.0, 13.0, 30.0, 22.0]]
    images = [
        np.asarray(
            draw_results(
                first['image'], [dict(first, gt_bboxes=boxes[:n])], side=32 * TIMES
            )
        )
        for n in range(3)
    ]
    np.testing.assert_array_equal(images[1], np.asarray(one))
    assert (images[0] != images[1]).any() and (images[1] != images[2]).any()
    top, left = (int(v) for v in np.argwhere((images[1] != images[2]).any(-1)).min(0))
    np.testing.assert_allclose((left, top), np.multiply(boxes[1][:2], TIMES), atol=2)


def test_pseudo_labels_of_any_number_of_targets_are_drawn(results):
    image = Path(results[0]['image'])
    line = dict(filename=image.name, rule='n')

    def drawn(*boxes):
        box = boxes[0] if len(boxes) == 1 else list(boxes)
        regions = [dict(bbox=box)] if boxes else []
        line['grounding'] = dict(caption='dogs', regions=regions)
        figure, missing = draw_labels([line], image.parent)
        pixels = figure.axes[0].images[0].get_array()
        plt.close(figure)
        assert missing == []
        return np.asarray(pixels)

    one, other = [1.0, 1.0, 9.0, 9.0], [12.0, 5.0, 20.0, 15.0]
    nothing = drawn()
    changed = [(drawn(*boxes) != nothing) for boxes in ([one], [other], [one, other])]
    assert changed[0].any() and changed[1].any()
    np.testing.assert_array_equal(changed[0] | changed[1], changed[2])


def test_sets_of_boxes_are_drawn_by_what_they_find(results, tmp_path, monkeypatch):
    """Right ones, wrong ones and those below the threshold; and none at all."""
    common = dict(image=results[0]['image'], split='val', source='human')
    near = [edge + 0.25 for edge in OTHER]
    rows = [
        dict(text='a', gt_bboxes=[OTHER, [20, 14, 30, 22]], bboxes=[BOX, near, OTHER]),
        dict(text='b', gt_bboxes=[], bboxes=[OTHER]),
        dict(text='c', gt_bboxes=[BOX], bboxes=[]),
    ]
    scores = [[0.9, 0.8, 0.2], [0.3], []]
    lines = [
        dict(common, **row, sample_id=row['text'], scores=own)
        for row, own in zip(rows, scores, strict=True)
    ]
    path = tmp_path / 'sets.jsonl'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    read = read_set_results(path, MatchingRule(score_thr=0.5))
    assert [row['found'] for row in read] == [[False, True], [], []]
    assert [row['f1'] for row in read] == [0.5, 1.0, 0.0]
    figure = draw_grid(read, '')
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [
        '"a"\nF1 0.50 (0.90, 0.80)',
        '"b"\nF1 1.00 (not in this image)',
        '"c"\nF1 0.00 (not in this image)',
    ]
    plt.close(figure)
    without = [dict(row, scores=[None] * len(row['scores'])) for row in read]
    figure = draw_grid(without, '')
    assert [axes.get_title() for axes in figure.axes if axes.images] == [
        '"a"\nF1 0.50',
        '"b"\nF1 1.00 (not in this image)',
        '"c"\nF1 0.00 (not in this image)',
    ]
    plt.close(figure)
    image = draw_results(read[0]['image'], read[:1], side=32 * TIMES)
    assert extent(image, '#ff1744') == [edge * TIMES for edge in BOX]
    np.testing.assert_allclose(extent(image, '#00c853'), np.array(near) * TIMES, atol=1)
    plain = draw_results(read[1]['image'], read[1:2], side=32 * TIMES)
    assert (np.asarray(plain) == 200).all()
    out = tmp_path / 'sets.png'
    argv = ['draw_results.py', path, '--out', out, '--score-thr', 0.5]
    monkeypatch.setattr(sys, 'argv', [str(value) for value in argv])
    runpy.run_path(str(ROOT / 'tools/draw_results.py'), run_name='__main__')
    plt.close('all')
    assert Image.open(out).width > 100


def test_the_command_draws_a_choice_that_the_seed_decides(
    results, tmp_path, monkeypatch
):
    more = [
        dict(results[i % 2], sample_id=f'{i}', text=f'{i}', split='val', source='human')
        for i in range(9)
    ]
    write_results(tmp_path / 'results.jsonl', more)

    def drawn(seed):
        out = tmp_path / f'{seed}.png'
        argv = [tmp_path / 'results.jsonl', '--out', out, '--number', 3, '--seed', seed]
        monkeypatch.setattr(sys, 'argv', ['draw_results.py', *map(str, argv)])
        runpy.run_path(str(ROOT / 'tools/draw_results.py'), run_name='__main__')
        plt.close('all')
        with Image.open(out) as image:
            return np.asarray(image)

    first = drawn(0)
    np.testing.assert_array_equal(drawn(0), first)
    other = drawn(1)
    assert other.shape != first.shape or (other != first).any()


@pytest.mark.parametrize('dash', [None, (9, 4)])
@pytest.mark.parametrize(
    'box', [(10, 20, 70, 50), (10.4, 20.4, 69.6, 49.6), (-5, 10, 90, 60)]
)
def test_a_line_lies_inside_of_its_box(box, dash):
    image = Image.new('RGB', (100, 80))
    draw_box(ImageDraw.Draw(image), box, 'red', 3, dash=dash)
    pixels = np.asarray(image)[..., 0]
    rows, columns = np.nonzero(pixels)
    # Pillow cuts fractions off: a pixel at most.
    left, top, right, bottom = np.floor(box)
    slack = float(np.ptp(np.array(box) % 1) > 0)
    assert ((columns >= left) & (columns < right + slack)).all()
    assert ((rows >= top) & (rows < bottom + slack)).all()
    visible = np.array([left >= 0, top >= 0, right <= 100, bottom <= 80])
    ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    off = np.abs(np.array(ends) - (left, top, right, bottom))
    assert (off[visible] <= slack).all()
    assert not pixels[30:40, 20:60].any()  # the middle stays as it was


@pytest.mark.parametrize('dash', [None, (9, 4)])
def test_a_box_without_an_area_is_a_dot(dash):
    image = Image.new('RGB', (100, 80))
    draw_box(ImageDraw.Draw(image), (7, 7, 7, 7), 'red', 3, dash=dash)
    rows, columns = np.nonzero(np.asarray(image)[..., 0])
    assert len(rows)
    assert (np.abs([*rows - 7, *columns - 7]) <= 3).all()


def test_the_true_box_is_seen_on_a_dark_image(tmp_path):
    Image.new('RGB', (200, 200)).save(tmp_path / 'dark.png')
    corner = dict(iou=0.0, bbox=[0, 0, 10, 10], gt_bbox=[50, 50, 150, 150])
    image = draw_results(tmp_path / 'dark.png', [corner], side=200)
    pixels = np.asarray(image).max(-1)
    for edge in (pixels[46:54, 55:145], pixels[55:145, 146:154].T):
        assert (edge.max(0) > 200).mean() > 0.5
    assert pixels[60:140, 60:140].max() == 0
