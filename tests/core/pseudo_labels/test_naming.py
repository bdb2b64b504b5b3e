"""Which classes head phrases name."""

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels.naming import detection_logits, named_classes

from ...helpers.scenes import VOCABULARY

NAMES = ['person', 'dog', 'hot dog', 'couch', 'sports ball', 'pizza']


@pytest.mark.parametrize(
    ('head', 'expected'),
    [
        ('man with a dog', {'person'}),
        ('two brown dogs', {'dog'}),
        ('black sofa', {'couch'}),
        ('hot dog', {'hot dog'}),
        ('lady cutting the pizza', {'person'}),
        ('baseball player', {'person'}),  # no ball
        ('baseball', {'sports ball'}),
        ('man blue shirt', {'person'}),
        ('red one', set()),
        ('', set()),
    ],
)
def test_the_first_noun_names_the_class(head, expected):
    assert named_classes(head, NAMES, VOCABULARY) == expected


def test_class_and_confidence_add_up():
    scores = np.array([1.0, 0.5, 0.0])
    logits = detection_logits(
        ['dog', 'x'], ['dog', 'person', 'dog'], scores, VOCABULARY, 2.0, 0.5
    )
    confidence = 0.5 * np.log([1, 0.5, 1e-6])
    np.testing.assert_allclose(logits, [confidence + [2, 0, 2], confidence])
    unnamed = detection_logits(['dog'], None, scores, VOCABULARY, 2.0, 0.0)
    assert unnamed.tolist() == [[0, 0, 0]]
