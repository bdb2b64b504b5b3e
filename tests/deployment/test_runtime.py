"""An exported folder without PyTorch and MMDetection: the same boxes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.deployment.served_clip_vg import ServedCLIPVG
from projects.clip_vg_core.runtime.exported_inferencer import ExportedInferencer

from ..helpers import ROOT
from ..helpers.commands import run
from ..helpers.threads import predict_in_threads

pytest.importorskip('onnxscript')
BACKENDS = ['openvino', 'onnxruntime']
SCRIPT = """
import json, sys
blocked, folder, image, texts, backend = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))
from projects.clip_vg_core.runtime.exported_inferencer import ExportedInferencer
(prediction,) = ExportedInferencer(folder, backend=backend)(image, texts)['predictions']
print(json.dumps(prediction))
"""
BLOCKED = [
    *('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'open_clip', 'scipy'),
    *('pandas', 'transformers', 'timm', 'cv2', 'matplotlib', 'projects.clip_vg'),
]
TEXTS = ['red circle', 'star on the left', 'schön &amp; 😀!~', 'left ' * 20]


@pytest.fixture(scope='module')
def inputs(shapes):
    """Files of several shapes, one turned by EXIF, and arrays."""
    rng = np.random.default_rng(0)
    sizes = [(20, 60), (60, 20), (32, 32), (47, 31), (100, 3)]
    arrays = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    return [*sorted((shapes / 'images').glob('*.jpg'))[:3], *arrays]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('kind', ['folder', 'variant_folder'])
def test_predictions_are_those_of_grounding_inferencer(request, inputs, kind, backend):
    """Bit by bit, as the same graphs get the same numbers."""
    pytest.importorskip(backend)
    folder = request.getfixturevalue(kind)
    texts = [TEXTS[: 1 + number % 4] for number in range(len(inputs))]
    expected = GroundingInferencer(folder, backend=backend, batch_size=3)(inputs, texts)
    infer = ExportedInferencer(folder, backend=backend, batch_size=3)
    found = infer(inputs, texts)['predictions']
    assert found == expected['predictions']
    assert np.std([p['bboxes'][0] for p in found], 0).max() > 1


def test_an_expression_has_the_boxes_from_the_threshold_on(variant_folder, inputs):
    infer = ExportedInferencer(variant_folder)
    assert infer.score_thr == 0.2
    infer.score_thr = 0.0
    (whole,) = infer(inputs[0], TEXTS)['predictions']
    assert whole['labels'] == sorted([*range(4)] * 5)
    infer.score_thr = sorted(whole['scores'])[12]
    (shown,) = infer(inputs[0], TEXTS)['predictions']
    rows = zip(whole['bboxes'], whole['scores'], whole['labels'], strict=True)
    kept = [row for row in rows if row[1] >= infer.score_thr]
    assert [shown[k] for k in ('bboxes', 'scores', 'labels')] == [
        *map(list, zip(*kept, strict=False))
    ]
    assert len(kept) == 8
    for label in range(4):
        own = [score for _, score, number in kept if number == label]
        assert own == sorted(own, reverse=True)
    infer.score_thr = 1.1
    (none,) = infer(inputs[0], TEXTS)['predictions']
    assert none['bboxes'] == none['labels'] == [] and none['texts'] == TEXTS


def test_without_a_confidence_head_scores_are_missing(folder, inputs):
    infer = ExportedInferencer(folder)
    (found,) = infer(inputs[0], TEXTS)['predictions']
    assert not infer.scored and found['scores'] == [None] * 4
    assert ServedCLIPVG(str(folder)).scored is False
    command = [sys.executable, '-m', 'projects.clip_vg_core.runtime', folder]
    done = run(*command, inputs[0], *TEXTS)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line['boxes'], line['scores']) for line in lines] == [
        ([box], [None]) for box in found['bboxes']
    ]
    with pytest.raises(ValueError, match=r'score_thr=0\.5.*no scores'):
        ExportedInferencer(folder, score_thr=0.5)


def test_photographs_are_turned_upright(folder, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.png', exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / 'upright.png')
    found = [
        ExportedInferencer(folder)(tmp_path / f'{name}.png', TEXTS)['predictions'][0]
        for name in ('turned', 'upright')
    ]
    assert found[0]['bboxes'] == found[1]['bboxes']


@pytest.mark.parametrize('backend', BACKENDS)
def test_it_needs_neither_pytorch_nor_mmdetection(
    variant_folder, inputs, tmp_path, backend
):
    pytest.importorskip(backend)
    moved = shutil.copytree(variant_folder, tmp_path / 'moved')
    argument = json.dumps([BLOCKED, str(moved), str(inputs[0]), TEXTS, backend])
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, argument],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    prediction = json.loads(done.stdout.splitlines()[-1])
    infer = GroundingInferencer(variant_folder, backend=backend)
    (expected,) = infer(inputs[0], TEXTS)['predictions']
    assert prediction == expected and prediction['bboxes']


@pytest.mark.parametrize('backend', BACKENDS)
def test_threads_get_the_boxes_of_one_thread(folder, inputs, backend):
    pytest.importorskip(backend)
    infer = ExportedInferencer(folder, backend=backend)

    def boxes(image):
        return infer(image, TEXTS)['predictions'][0]['bboxes']

    expected = [boxes(image) for image in inputs]
    for found in predict_in_threads(boxes, inputs):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=0.01)


def test_wrong_inputs_say_so(folder, inputs, tmp_path):
    infer = ExportedInferencer(folder)
    with pytest.raises(ValueError, match='image 1: .*none of them empty'):
        infer(inputs[0], ['left', ' '])
    with pytest.raises(ValueError, match='2 images and 1 lists'):
        infer(inputs[:2], [['left']])
    with pytest.raises(FileNotFoundError, match=r'gone\.jpg'):
        infer(tmp_path / 'gone.jpg', 'left')
    (tmp_path / 'tokenizer').mkdir()
    with pytest.raises(FileNotFoundError, match='no exported detector'):
        ExportedInferencer(tmp_path)


GROUND = """
import json, runpy, sys
blocked, *sys.argv = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_the_demo_runs_exported_folders_without_pytorch(
    variant_folder, inputs, tmp_path
):
    image, blocked = inputs[0], [*BLOCKED, 'mmcv._ext']
    questions = tmp_path / 'questions.csv'
    lines = [f'{image.name},{text}' for text in TEXTS[:2]]
    questions.write_text('\n'.join(['image,expression', *lines]))
    script = str(ROOT / 'demo' / 'ground.py')
    options = ['--checkpoint', str(variant_folder), '--out-dir', str(tmp_path)]
    (expected,) = GroundingInferencer(variant_folder)(image, TEXTS[:2])['predictions']
    for given, out in (
        ([str(image), *TEXTS[:2]], 'answers.json'),
        ([str(image.parent), '--expressions-file', str(questions)], 'questions.jsonl'),
    ):
        done = subprocess.run(
            [
                sys.executable,
                '-c',
                GROUND,
                json.dumps([blocked, script, *given, *options]),
            ],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        text = (tmp_path / out).read_text()
        lines = (
            json.loads(text)
            if out == 'answers.json'
            else map(json.loads, text.splitlines())
        )
        (found,) = [line for line in lines if 'bboxes' in line]
        assert found['bboxes'] == expected['bboxes']
    assert (tmp_path / f'{image.stem}.png').is_file()


def test_the_command_prints_a_line_for_each_expression(variant_folder, inputs):
    command = [sys.executable, '-m', 'projects.clip_vg_core.runtime', variant_folder]
    done = run(*command, inputs[0], *TEXTS, '--score-thr', 0.5)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    infer = ExportedInferencer(variant_folder, score_thr=0.5)
    (expected,) = infer(inputs[0], TEXTS)['predictions']
    assert [line['expression'] for line in lines] == TEXTS
    rows = [
        (label, box, score)
        for label, line in enumerate(lines)
        for box, score in zip(line['boxes'], line['scores'], strict=True)
    ]
    keys = ('labels', 'bboxes', 'scores')
    assert rows == [*zip(*(expected[key] for key in keys), strict=True)]
    for wrong in ([], [inputs[0]], [inputs[0], 'a', '--serve']):
        assert run(*command, *wrong, check=False).returncode == 2
