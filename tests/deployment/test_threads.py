"""Several threads that ask one model get the answers that one thread gets."""

import numpy as np
import pytest

from projects.clip_vg.apis import GroundingInferencer

from ..helpers.threads import ask_in_threads

WORDS = ['red', 'left', 'small', 'circle', 'star', 'cross', 'the big blue', 'upper']


@pytest.fixture(scope='module')
def questions():
    """40 pictures of a few shapes, each with one to three expressions."""
    rng = np.random.default_rng(0)
    return [
        (
            rng.integers(0, 256, (40 + 8 * (i % 5), 60, 3), np.uint8),
            [' '.join(rng.choice(WORDS, 3)) for _ in range(1 + i % 3)],
        )
        for i in range(40)
    ]


def check(ask, questions):
    def boxes(question):
        return np.array(ask(*question)['predictions'][0]['bboxes'])

    expected = [boxes(question) for question in questions]
    assert np.concatenate(expected).std(0).max() > 1  # pixels: questions matter
    for found in ask_in_threads(boxes, questions):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=0.01)


def test_pytorch(checkpoint, questions):
    check(GroundingInferencer(checkpoint, device='cpu'), questions)


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_float(folder, questions, backend):
    pytest.importorskip(backend)
    check(GroundingInferencer(folder, backend=backend), questions)


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_8_bits(quantized, questions, backend):
    pytest.importorskip(backend)
    ask = GroundingInferencer(quantized[0], backend=backend, precision='int8')
    check(ask, questions)
