"""Several threads that use one model get the predictions that one thread gets."""

import numpy as np
import pytest

from projects.clip_vg.apis import GroundingInferencer

from ..helpers.threads import predict_in_threads

WORDS = ['red', 'left', 'small', 'circle', 'star', 'cross', 'the big blue', 'upper']


@pytest.fixture(scope='module')
def inputs():
    """40 images of a few shapes, each with one to three expressions."""
    rng = np.random.default_rng(0)
    return [
        (
            rng.integers(0, 256, (40 + 8 * (i % 5), 60, 3), np.uint8),
            [' '.join(rng.choice(WORDS, 3)) for _ in range(1 + i % 3)],
        )
        for i in range(40)
    ]


def check(infer, inputs):
    def boxes(one):
        return np.array(infer(*one)['predictions'][0]['bboxes'])

    expected = [boxes(one) for one in inputs]
    assert np.concatenate(expected).std(0).max() > 1  # pixels: inputs matter
    for found in predict_in_threads(boxes, inputs):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=0.01)


def test_pytorch(checkpoint, inputs):
    check(GroundingInferencer(checkpoint, device='cpu'), inputs)


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_float(folder, inputs, backend):
    pytest.importorskip(backend)
    check(GroundingInferencer(folder, backend=backend), inputs)


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_8_bits(quantized, inputs, backend):
    pytest.importorskip(backend)
    infer = GroundingInferencer(quantized[0], backend=backend, precision='int8')
    check(infer, inputs)
