"""Verdicts on labels: as a person would read them."""

import pytest

from benchmarks.label_truth import verdict_of
from projects.clip_vg.synthetic.detections import read_shapes
from projects.clip_vg.synthetic.expressions import Shape
from projects.clip_vg_core.data.readers import read_annotations

SIZE = (160, 120)
RED, BLUE, STAR = (
    Shape('circle', 'red', 'small', (10, 10, 30, 30)),
    Shape('circle', 'blue', 'big', (100, 60, 150, 110)),
    Shape('star', 'red', 'small', (60, 10, 80, 30)),
)
OBJECTS = [RED, BLUE, STAR]


@pytest.mark.parametrize(
    ('text', 'item', 'verdict'),
    [
        ('star', STAR, 'right'),
        ('red circle', RED, 'right'),
        ('a big blue circle', BLUE, 'right'),
        ('circle', RED, 'ambiguous'),
        ('circle on the left', RED, 'right'),
        ('circle left', BLUE, 'wrong place'),
        ('front circle', BLUE, 'right'),
        ('circle in the behind', BLUE, 'wrong place'),
        ('left star', STAR, 'right'),  # the only star, wherever it is
        ('square', STAR, 'wrong class'),
        ('blue star', STAR, 'wrong attribute'),
        ('big star', STAR, 'wrong attribute'),
        ('circle left of star', RED, 'right'),
        ('circle right of the red star', BLUE, 'right'),
        ('circle right of star', RED, 'wrong relation'),
        ('circle left of square', RED, 'wrong relation'),
        ('there is a small red star on the left', STAR, 'right'),
    ],
)
def test_a_label_of_an_object(text, item, verdict):
    assert verdict_of(text, item.box, SIZE, OBJECTS) == verdict


def test_the_middle_of_three():
    row = [Shape('star', 'red', 'big', (x, 10, x + 20, 30)) for x in (10, 60, 110)]
    assert verdict_of('star in the middle', row[1].box, SIZE, row) == 'right'
    assert verdict_of('center star', row[0].box, SIZE, row) == 'wrong place'


def test_a_column_has_no_middle():
    """The one in between along y is the left extreme along x."""
    column = [
        Shape('star', 'red', 'big', (x, y, x + 20, y + 20))
        for x, y in ((60, 10), (10, 50), (110, 90))
    ]
    assert (
        verdict_of('star in the middle', column[1].box, SIZE, column) == 'wrong place'
    )
    assert verdict_of('star in the middle', column[0].box, SIZE, column) == 'right'


@pytest.mark.parametrize('objects', [OBJECTS, []])
def test_a_box_that_is_no_objects(objects):
    assert verdict_of('star', (0, 80, 40, 120), SIZE, objects) == 'box off'


def test_true_expressions_of_the_data_set_are_right(shapes):
    truth = {
        image['file_name']: ((image['width'], image['height']), objects)
        for image, objects in read_shapes(shapes / 'shapes' / 'instances.json')
    }
    labels = read_annotations(
        shapes / 'shapes' / 'instances.json', shapes / 'shapes' / 'refs(synthetic).p'
    )
    # What verdict_of does not know: "one", "object", "leftmost", "at the top".
    known = [
        label
        for label in labels
        if label['text'].split()[-1] in ('circle', 'square', 'triangle', 'star')
        and 'most' not in label['text']
        and 'lowest' not in label['text']
        and 'one' not in label['text']
    ]
    assert len(known) > 20
    for label in known:
        verdict = verdict_of(
            label['text'], tuple(label['bbox']), *truth[label['image']]
        )
        assert verdict == 'right', label['text']
