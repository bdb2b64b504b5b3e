import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from projects.clip_vg.visualization import draw_grid, draw_sample

BOX, OTHER = [4.0, 2.0, 20.0, 12.0], [1.0, 1.0, 9.0, 9.0]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / 'picture.png'
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(path)
    common = dict(image=str(path), gt_bbox=OTHER, bbox=BOX)
    return [
        dict(common, text='left man', iou=0.75),
        dict(common, text='costs $5 or $6', iou=0.48),
    ]


@pytest.mark.parametrize('measure', ['IoU', 'reliability'])
def test_every_answer_is_drawn_with_its_boxes_and_its_value(results, measure):
    figure = draw_grid(results, 'answers', names=('ours', 'label'), measure=measure)
    shown = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in shown]
    assert titles == [
        f'"left man"\n{measure} 0.75',
        f'"costs $5 or $6"\n{measure} 0.48',
    ]
    colours = []
    for axes in shown:
        corners = [patch.get_bbox().extents + 0.5 for patch in axes.patches]
        np.testing.assert_allclose(corners, [OTHER, BOX])
        colours.append(axes.patches[1].get_edgecolor())
    labels = {
        text.get_text(): line.get_color()
        for legend in figure.legends
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert list(labels) == [
        f'ours, {measure} >= 0.5',
        f'ours, {measure} < 0.5',
        'label',
    ]
    assert colours == [to_rgba(c) for c in list(labels.values())[:2]]
    plt.close(figure)


def test_the_true_box_is_seen_on_a_dark_picture():
    figure = plt.figure(figsize=(2, 2), dpi=100, facecolor='black')
    axes = figure.add_axes((0, 0, 1, 1))
    corner = dict(text='', iou=0.0, bbox=[0, 0, 10, 10], gt_bbox=[50, 50, 150, 150])
    draw_sample(axes, np.zeros((200, 200, 3), np.uint8), corner)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].max(-1)
    for edge in (pixels[46:54, 55:145], pixels[55:145, 146:154].T):
        assert (edge.max(0) > 200).mean() > 0.5
    assert pixels[60:140, 60:140].max() == 0
    plt.close(figure)
