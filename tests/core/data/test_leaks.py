"""Images that are trained on and tested on, whatever they are called."""

import pytest

from projects.clip_vg_core.data.leaks import image_key, leaking_labels
from projects.clip_vg_core.data.table_builder import TableBuilder


def table(*images):
    builder = TableBuilder(str)
    for i, image in enumerate(images):
        builder.add(image, [1, 1, 9, 9], 'x', f'{i}', 'train', 'human')
    return builder.build('xyxy')


@pytest.mark.parametrize(
    'first, second, same',
    [
        ('COCO_train2014_000000000072.jpg', '000000000072.jpg', True),
        ('a/COCO_train2014_000000000072_5.jpg', 'b/000000000072.png', True),
        ('COCO_train2014_000000000072.jpg', '000000000073.jpg', False),
        ('images/1.jpg', 'images\\1.JPG', True),
        ('images/1.jpg', 'images/1.png', True),
        # Numbered anew in each folder.
        ('train/1.jpg', 'val/1.jpg', False),
        ('1.jpg', '2.jpg', False),
    ],
)
def test_names_of_one_image(first, second, same):
    assert (image_key(first) == image_key(second)) is same
    assert leaking_labels(table(first), [table(second)]).tolist() == [0] * same


def test_labels_of_all_held_out_tables_leak():
    training = table('a.jpg', 'b.jpg', 'a.jpg', 'c.jpg')
    assert leaking_labels(training, []).tolist() == []
    held_out = [table('x.jpg', 'a.jpg'), table('c.jpg')]
    assert leaking_labels(training, held_out).tolist() == [0, 2, 3]
    # An image without a label left is not tested on.
    held_out[0] = held_out[0].take([0])
    assert leaking_labels(training, held_out).tolist() == [3]
