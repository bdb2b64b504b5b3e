"""What is exported answers as PyTorch does, whatever is asked together."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps

from projects.clip_vg.apis import GroundingInferencer

from ..helpers.commands import ended_well, run_script
from ..helpers.models import IMAGES, SIZE, make_batch, symbol_texts

pytest.importorskip('onnxscript')
pytest.importorskip('openvino')
pytest.importorskip('onnxruntime')

from projects.clip_vg.deployment import export, quantize  # noqa: E402
from projects.clip_vg.deployment.export import export_detector  # noqa: E402
from projects.clip_vg.deployment.quantize import quantize_deployment  # noqa: E402
from projects.clip_vg.deployment.served_clip_vg import ServedCLIPVG  # noqa: E402
from projects.clip_vg_core.runtime import exported_model  # noqa: E402
from projects.clip_vg_core.runtime.exported_model import plan_calls  # noqa: E402
from projects.clip_vg_core.runtime.graphs import open_graph  # noqa: E402

BACKENDS = ['openvino', 'onnxruntime']
LONG = ' '.join(['dog'] * 20)  # fills the context
BATCHES = {
    'ragged groups, all letterboxes': IMAGES,
    'one question': [((0, 4, 32, 24), 'man')],
    'the longest text': [
        ((0, 0, 32, 32), [LONG, 'a']),
        ((0, 8, 32, 16), ['red', LONG]),
    ],
    'forty questions': [((0, 4, 32, 24), [f'{n} left' for n in range(40)])],
}


def answers(model, batch, key='bboxes'):
    """Of all questions, in pixels of the pictures."""
    samples = model.test_step(copy.deepcopy(batch))
    return torch.cat([sample.pred_instances[key] for sample in samples])


@pytest.fixture(scope='module', params=BACKENDS)
def served(folder, request):
    return ServedCLIPVG(str(folder), request.param)


@torch.no_grad()
@pytest.mark.parametrize('pictures', BATCHES.values(), ids=BATCHES)
def test_answers_are_those_of_pytorch(detector, served, pictures):
    batch = make_batch(pictures)
    expected = answers(detector[0], batch)
    torch.testing.assert_close(
        answers(served, batch), expected, atol=1e-4 * SIZE, rtol=0
    )
    if len(expected) > 1:
        assert expected.std(0).max() > 0.01 * SIZE  # they do depend on the question


@torch.no_grad()
@pytest.mark.parametrize('at_once', [1, 3])
def test_answers_do_not_depend_on_what_is_asked_at_once(served, monkeypatch, at_once):
    batch = make_batch()
    expected = answers(served, batch)
    monkeypatch.setattr(exported_model, 'EXPRESSIONS_AT_ONCE', at_once)
    torch.testing.assert_close(
        answers(served, batch), expected, atol=1e-4 * SIZE, rtol=0
    )


@torch.no_grad()
def test_symbols_are_answered_as_alone_and_by_pytorch(detector, served):
    """CLIP's id of "!" in a run of symbols is 0, as that of the filling."""
    texts = symbol_texts(40)
    batch = make_batch([((0, 4, 32, 24), texts)])
    together = answers(served, batch)
    assert together.std(0).max() > 0.01 * SIZE
    torch.testing.assert_close(
        together, answers(detector[0], batch), atol=1e-4 * SIZE, rtol=0
    )
    alone = []
    for text in texts:
        one = copy.deepcopy(batch)
        one['data_samples'][0].set_metainfo(dict(text=[text]))
        alone.append(answers(served, one))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4 * SIZE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('backend', BACKENDS)
def test_prompt_template_scores_several_queries_and_other_widths(
    variant, variant_folder, backend, monkeypatch
):
    batch = make_batch()
    served = ServedCLIPVG(str(variant_folder), backend)
    monkeypatch.setattr(exported_model, 'EXPRESSIONS_AT_ONCE', 3)
    for key, size in (('bboxes', SIZE), ('scores', 1)):
        expected = answers(variant[0], batch, key)
        each = expected.unflatten(0, (8, 5))
        assert min(each.std(0).max(), each.std(1).max()) > 0.01 * size
        torch.testing.assert_close(
            answers(served, batch, key), expected, atol=1e-4 * size, rtol=0
        )


def test_the_threshold_is_exported(variant, variant_folder, shapes):
    """Of what the folder predicts, the boxes that the checkpoint's would show."""
    image = next((shapes / 'images').glob('*.jpg'))
    infer = GroundingInferencer(variant_folder)
    assert infer.score_thr == variant[0].score_thr == 0.2
    infer.score_thr = 0.0
    (whole,) = infer(image, ['star', 'left'])['predictions']
    assert len(whole['bboxes']) == 10
    infer.score_thr = sorted(whole['scores'])[5]
    (shown,) = infer(image, ['star', 'left'])['predictions']
    pairs = zip(whole['bboxes'], whole['scores'], strict=True)
    assert shown['bboxes'] == [box for box, s in pairs if s >= infer.score_thr]
    assert len(shown['bboxes']) == 5


def test_a_folder_of_an_older_version_has_one_query(folder, tmp_path):
    older = tmp_path / 'older'
    shutil.copytree(folder, older)
    described = json.loads((older / 'deployment.json').read_text())
    for name in ('num_queries', 'score_thr'):
        described.pop(name)
    (older / 'deployment.json').write_text(json.dumps(described))
    batch = make_batch()
    first, second = (
        answers(ServedCLIPVG(str(path)), batch) for path in (folder, older)
    )
    assert torch.equal(first, second)
    assert ServedCLIPVG(str(older)).score_thr == 0


def test_the_folder_alone_answers_pictures(folder, checkpoint, shapes, tmp_path):
    moved = tmp_path / 'moved'
    shutil.copytree(folder, moved)
    files = sorted((shapes / 'images').glob('*.jpg'))[:5]
    asked = [['red circle', 'star on the left', 'left'][: 1 + i % 3] for i in range(5)]
    expected = GroundingInferencer(checkpoint, device='cpu')(files, asked)
    found = GroundingInferencer(moved, batch_size=2)(files, asked)
    for one, other in zip(found['predictions'], expected['predictions'], strict=True):
        assert {k: one[k] for k in ('texts', 'image')} == {
            k: other[k] for k in ('texts', 'image')
        }
        np.testing.assert_allclose(one['bboxes'], other['bboxes'], atol=0.02)


def test_every_question_is_in_one_call_with_pictures_of_its_size():
    generator = np.random.default_rng(0)
    counts = generator.integers(5, 8, 9)
    image_index = np.repeat(np.arange(9), generator.integers(1, 30, 9))
    lengths = generator.integers(3, 12, len(image_index))
    seen = []
    for pictures, parts in plan_calls(counts, image_index, lengths):
        assert len(set(counts[pictures])) == 1
        for rows, length in parts:
            assert set(image_index[rows]) <= set(pictures)
            assert length == lengths[rows].max() and 0 < len(rows) <= 16
            seen += rows.tolist()
    assert sorted(seen) == list(range(len(image_index)))


def test_a_broken_export_leaves_nothing_to_serve(
    detector, folder, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(export, 'write_graph', lambda *_: None)  # the graphs stay
    model, cfg = copy.deepcopy(detector[0]), detector[1]
    torch.nn.init.normal_(model.fusion.layers[0].linear2.weight)
    with pytest.raises(RuntimeError, match=r'grounding.onnx is off by .*images'):
        export_detector(model, cfg, tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r'has no deployment.json'):
        ServedCLIPVG(str(tmp_path))


def test_a_detector_too_large_for_a_file_is_refused(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'MOST_BYTES', 1000)
    with pytest.raises(ValueError, match='image.onnx would pass 1,000 bytes'):
        export_detector(*detector, tmp_path)


@torch.no_grad()
@pytest.mark.parametrize('backend', BACKENDS)
def test_8_bits_answer_almost_the_same(detector, quantized, backend):
    folder, agreement = quantized
    assert 0.8 < agreement < 1
    batch = make_batch()
    expected = answers(detector[0], batch)
    found = answers(ServedCLIPVG(str(folder), backend, 'int8'), batch)
    assert bbox_overlaps(found, expected, is_aligned=True).mean() > 0.8
    assert not torch.equal(found, expected)
    sizes = [(folder / f'grounding{k}.onnx').stat().st_size for k in ('_int8', '')]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.mark.slow
@torch.no_grad()
def test_8_bits_of_several_queries(variant, variant_folder, tmp_path):
    """Agreement is of the boxes that are shown."""
    copied = tmp_path / 'exported'
    shutil.copytree(variant_folder, copied)
    assert 0.8 < quantize_deployment(copied, [make_batch() for _ in range(4)]) < 1
    batch, served = make_batch(), ServedCLIPVG(str(copied), precision='int8')
    scores, expected = answers(served, batch, 'scores'), answers(variant[0], batch)
    shown = answers(variant[0], batch, 'scores') >= served.score_thr
    overlaps = bbox_overlaps(answers(served, batch), expected, is_aligned=True)
    assert overlaps[shown].mean() > 0.8 and len(shown) == len(scores) == 40
    assert (scores - answers(variant[0], batch, 'scores')).abs().max() < 0.1


def test_8_bits_that_answer_otherwise_are_not_kept(folder, tmp_path, monkeypatch):
    copied = tmp_path / 'exported'
    shutil.copytree(folder, copied)
    monkeypatch.setattr(quantize, 'write_quantized', lambda *_: None)
    monkeypatch.setattr(quantize, 'open_graph', lambda path, *_: upside_down)
    right = open_graph(copied / 'grounding.onnx', 'openvino', 'f32')

    def upside_down(feed):
        if 'images' in feed:
            return right_image(feed)
        (boxes,) = right(feed)
        return [1 - boxes]

    right_image = open_graph(copied / 'image.onnx', 'openvino', 'f32')
    with pytest.raises(RuntimeError, match=r'(?s)mean IoU of 0.*not written'):
        quantize_deployment(copied, [make_batch()])
    with pytest.raises(ValueError, match='has no int8 weights'):
        ServedCLIPVG(str(copied), precision='int8')
    with pytest.raises(ValueError, match='calibrate'):
        quantize_deployment(copied, [])


def test_signals_are_handled_when_detectors_have_gone(folder, tmp_path):
    """Cores of OpenVINO that go in the order they came take the signal stack away."""
    script = tmp_path / 'script.py'
    script.write_text(f"""
import signal
from pathlib import Path
from projects.clip_vg_core.runtime.graphs import open_graph

handled = []
signal.signal(signal.SIGCHLD, lambda *_: handled.append(1))
path = Path({str(folder)!r}) / 'image.onnx'
first, second = (open_graph(path, 'openvino', 'f32') for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGCHLD)
assert handled
""")
    ended_well(run_script(script))
