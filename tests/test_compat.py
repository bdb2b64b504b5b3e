"""The stand-in for compiled ops, and checkpoints on today's PyTorch."""

import math
import os
import subprocess
import sys

import mmcv.ops
import mmengine.optim.scheduler
import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import save_checkpoint

from projects.clip_vg import mmcv_finder
from projects.clip_vg_core.utils.safe_pickle import UnsafePickleError

is_fallback = sys.modules['mmcv._ext'].__file__.endswith('mmcv_ext.py')


def random_boxes(count, seed=0, size=40):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * size
    sides = torch.rand(count, 2, generator=generator) * size * 0.6 + 1
    scores = torch.rand(count, generator=generator)
    return torch.cat([corners, corners + sides], 1), scores


def slow_iou(a, b, offset):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(0.0, width) * max(0.0, height)
    areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
    return inter / (sum(areas) - inter)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5])
def test_nms_equals_the_definition(offset, threshold):
    boxes, scores = random_boxes(60)
    order = scores.argsort(descending=True).tolist()
    expected = []
    for i in order:
        beaten = (
            slow_iou(boxes[i].tolist(), boxes[j].tolist(), offset) > threshold
            for j in expected
        )
        if not any(beaten):
            expected.append(i)
    dets, kept = mmcv.ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == expected
    assert torch.equal(dets[:, 4], scores[kept])


def test_batched_nms_keeps_classes_apart():
    boxes, scores = random_boxes(40)
    labels = torch.arange(40) % 3
    _, kept = mmcv.ops.batched_nms(
        boxes, scores, labels, dict(type='nms', iou_threshold=0.3)
    )
    expected = []
    for label in range(3):
        own = (labels == label).nonzero().flatten()
        _, inner = mmcv.ops.nms(boxes[own], scores[own], 0.3)
        expected += own[inner].tolist()
    assert sorted(kept.tolist()) == sorted(expected)


def slow_soft_nms(boxes, scores, threshold, sigma, min_score, method):
    """The published algorithm (Soft-NMS, 2017) on Python lists."""
    left = {i: float(s) for i, s in enumerate(scores)}
    kept = []
    while left:
        best = max(left, key=left.get)
        kept.append((best, left.pop(best)))
        for i in list(left):
            overlap = slow_iou(boxes[best].tolist(), boxes[i].tolist(), 0)
            if method == 'gaussian':
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap if method == 'linear' else 0
            if left[i] < min_score:
                del left[i]
    return kept


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_equals_the_definition(method):
    boxes, scores = random_boxes(30)
    expected = slow_soft_nms(boxes, scores, 0.3, 0.5, 0.05, method)
    dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method)
    assert kept.tolist() == [i for i, _ in expected]
    np.testing.assert_allclose(dets[:, 4], [s for _, s in expected], rtol=1e-4)


def test_nms_match_groups_what_each_box_beat():
    boxes, scores = random_boxes(30)
    groups = mmcv.ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    _, kept = mmcv.ops.nms(boxes, scores, 0.3)
    assert [int(group[0]) for group in groups] == kept.tolist()
    assert sorted(int(i) for group in groups for i in group) == list(range(30))
    for first, *beaten in groups:
        for i in beaten:
            assert slow_iou(boxes[first].tolist(), boxes[i].tolist(), 0) >= 0.3


def bilinear(plane, y, x):
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    low_y, low_x = min(int(y), height - 1), min(int(x), width - 1)
    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
    if low_y >= height - 1:
        y = float(low_y)
    if low_x >= width - 1:
        x = float(low_x)
    ly, lx = y - low_y, x - low_x
    return (
        plane[low_y, low_x] * (1 - ly) * (1 - lx)
        + plane[low_y, high_x] * (1 - ly) * lx
        + plane[high_y, low_x] * ly * (1 - lx)
        + plane[high_y, high_x] * ly * lx
    )


def test_roi_align_equals_the_definition():
    features = torch.rand(2, 3, 9, 11)
    rois = torch.tensor([[0, 1.0, 2.0, 8.0, 7.0], [1, 0.0, 0.0, 20.0, 17.0]])
    got = mmcv.ops.RoIAlign((2, 3), 0.5, sampling_ratio=2, aligned=True)(features, rois)
    for k, (index, *box) in enumerate(rois.tolist()):
        left, top, right, bottom = (edge * 0.5 - 0.5 for edge in box)
        step_y, step_x = (bottom - top) / 2, (right - left) / 3
        for row in range(2):
            for column in range(3):
                samples = [
                    bilinear(
                        features[int(index), 0],
                        top + step_y * (row + (i + 0.5) / 2),
                        left + step_x * (column + (j + 0.5) / 2),
                    )
                    for i in range(2)
                    for j in range(2)
                ]
                assert abs(got[k, 0, row, column] - sum(samples) / 4) < 1e-5


no_compiled_pool = pytest.mark.skipif(
    not is_fallback, reason='the compiled RoIPool of MMCV has no CPU version'
)


@no_compiled_pool
def test_roi_pool_equals_the_definition():
    features = torch.rand(2, 2, 8, 8)
    rois = torch.tensor([[0, 0.0, 0.0, 7.0, 7.0], [1, 2.0, 1.0, 6.0, 5.0]])
    got = mmcv.ops.RoIPool(2, 1.0)(features, rois)
    assert torch.equal(got[0], torch.nn.functional.adaptive_max_pool2d(features[0], 2))
    # 5 x 5 cells in 2 bins: rows 1-3 and 3-5, columns 2-4 and 4-6.
    for row, rows in enumerate((slice(1, 4), slice(3, 6))):
        for column, columns in enumerate((slice(2, 5), slice(4, 7))):
            expected = features[1, :, rows, columns].amax((1, 2))
            assert torch.equal(got[1, :, row, column], expected)


@pytest.mark.parametrize(
    'pool', ['RoIAlign', pytest.param('RoIPool', marks=no_compiled_pool)]
)
def test_gradients_equal_numerical_ones(pool):
    features = torch.rand(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.5, 1.0, 4.5, 5.0]], dtype=torch.float64)
    layer = getattr(mmcv.ops, pool)(2, 1.0)
    assert torch.autograd.gradcheck(lambda x: layer(x, rois), features)


@pytest.mark.skipif(not is_fallback, reason='a compiled MMCV is installed')
def test_an_op_without_counterpart_raises_when_called():
    mask = torch.zeros(1, 18, 4, 4)
    with pytest.raises(RuntimeError, match=r'deform_conv_forward.*make mmcv'):
        mmcv.ops.deform_conv2d(
            torch.zeros(1, 3, 4, 4), mask, torch.zeros(3, 3, 3, 3), 1, 1
        )


def test_a_compiled_extension_wins(tmp_path):
    """The finder is asked last, so whatever else can be imported is taken."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('compiled = True')
    code = (
        f'import runpy, sys; runpy.run_path({mmcv_finder.__file__!r}); '
        f'sys.path.insert(0, {str(tmp_path)!r}); '
        'import mmcv._ext as e; print(e.compiled)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == 'True', done.stderr


def checkpoint():
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.statistics('mean')
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    return dict(
        meta=dict(epoch=1, iter=3, seed=np.int64(5), cfg='text'),
        state_dict={'weight': torch.ones(2)},
        message_hub=dict(log_scalars={'train/loss': history}),
        optimizer=optimizer.state_dict(),
    )


def test_a_checkpoint_of_mmengine_loads(tmp_path):
    path = str(tmp_path / 'epoch_1.pth')
    save_checkpoint(checkpoint(), path)
    loaded = CheckpointLoader.load_checkpoint(path, logger=None)
    assert loaded['message_hub']['log_scalars']['train/loss'].current() == 2.0
    assert torch.equal(loaded['state_dict']['weight'], torch.ones(2))


SCHEDULERS = {
    name: cls
    for name, cls in vars(mmengine.optim.scheduler).items()
    if name.endswith('LR') and isinstance(cls, type)
}
OPTIONS = dict(
    CosineAnnealingLR=dict(T_max=5),
    ExponentialLR=dict(gamma=0.9),
    CosineRestartLR=dict(periods=[2, 3], restart_weights=[1, 0.5], eta_min=0),
    MultiStepLR=dict(milestones=[2]),
    OneCycleLR=dict(eta_max=0.1, total_steps=9),
    ReduceOnPlateauLR=dict(monitor='loss'),
    StepLR=dict(step_size=2),
)


@pytest.mark.parametrize('name', SCHEDULERS)
def test_the_state_of_every_schedule_loads(tmp_path, name):
    def build():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        return SCHEDULERS[name](optimizer, **OPTIONS.get(name, {}))

    saved, loaded = build(), build()
    path = str(tmp_path / 'epoch_1.pth')
    save_checkpoint(dict(param_schedulers=[saved.state_dict()]), path)
    state = CheckpointLoader.load_checkpoint(path, logger=None)['param_schedulers'][0]
    loaded.load_state_dict(state)
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    if name == 'OneCycleLR':
        assert loaded.anneal_func(0.1, 0.2, 0.5) == saved.anneal_func(0.1, 0.2, 0.5)


def test_getattr_in_a_checkpoint_reaches_nothing_else(tmp_path):
    class Attack:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    path = str(tmp_path / 'hostile.pth')
    torch.save(dict(state_dict={}, x=Attack()), path)
    with pytest.raises(ValueError, match='getattr.*__init__'):
        CheckpointLoader.load_checkpoint(path, logger=None)


def test_a_hostile_checkpoint_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/touched',)

    path = str(tmp_path / 'hostile.pth')
    torch.save(dict(state_dict={}, x=Attack()), path)
    with pytest.raises(UnsafePickleError, match='posix.system'):
        CheckpointLoader.load_checkpoint(path, logger=None)
    assert not (tmp_path / 'touched').exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    backend = get_file_backend(backend_args=dict(backend='AtomicLocalBackend'))
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'old', path)

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b'new', path)
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]
