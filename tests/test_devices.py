"""The package on a device that is not the CPU: no tensor is left behind on the CPU.

On a stand-in for a GPU, see :mod:`tests.helpers.stand_in_device`; that stand-in first.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.frozen_weights import FINGERPRINT
from projects.clip_vg.engine import PseudoLabelReliabilityHook, SlimCheckpointHook
from projects.clip_vg.engine.clip_matching import (
    AGREEMENT_PIPELINE,
    AgreementScorer,
    agreement_config,
)
from projects.clip_vg.engine.scoring import evaluation_view, plan_batches, score_labels
from projects.clip_vg.evaluation import GroundingMetric
from projects.clip_vg.models.grounding_tta_model import GroundingTTAModel

from .helpers import ROOT
from .helpers.configs import TEST, model_config, pool_config
from .helpers.models import IMAGES, make_batch, save_tiny
from .helpers.shrink import shrink_timm, small_arch, small_detector
from .helpers.stand_in_device import DEVICE, stand_in_device


@pytest.fixture
def device():
    with stand_in_device() as device:
        yield device


X = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    'mixed',
    [
        lambda x: x + X,
        lambda x: X.mul_(x),
        lambda x: torch.cat([x, X]),
        lambda x: torch.stack([x.sum(), X.sum()]),
        lambda x: torch.where(X > 2, x, 0.0),
        lambda x: x @ X.T,
        lambda x: torch.nn.functional.linear(x, X),
        lambda x: x.index_select(0, torch.tensor([1])),
        lambda x: x.gather(1, torch.tensor([[1]])),
        lambda x: torch.nn.functional.embedding(torch.tensor([1]), x),
        lambda x: X[torch.tensor([1], device=DEVICE)],
        lambda x: x + torch.tensor(1.0, device=DEVICE) * X,
        lambda x: x.index_put((torch.tensor([1]),), X[:1]),
        lambda x: x.numpy(),
    ],
)
def test_the_stand_in_refuses_what_a_gpu_refuses(device, mixed):
    with pytest.raises((RuntimeError, TypeError), match='stand-in|numpy|meta'):
        mixed(X.to(DEVICE))


@pytest.mark.parametrize(
    'permitted, waits',
    [
        (lambda x: x + 1, 0),
        (lambda x: x * torch.tensor(2.0), 0),
        (lambda x: x.sum(1), 0),
        (lambda x: torch.full_like(x, 3.0) + x.new_zeros(3), 0),
        (lambda x: torch.eye(2, device=x.device) @ x, 0),
        (lambda x: x.clone().masked_fill_(x > 2, 0.0), 0),
        (lambda x: x[:, 1:].double(), 0),
        (lambda x: x + X.to(x.device, non_blocking=True), 0),
        (lambda x: x[torch.tensor([1, 0]).to(x.device, non_blocking=True)], 0),
        (lambda x: x + X.to(x.device), 1),
        (lambda x: x + x.new_tensor([1.0, 2.0, 3.0]), 1),
        (lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device), 1),
        (lambda x: x[[1, 0]], 1),
        (lambda x: x[torch.tensor([1, 0])], 1),
        (lambda x: x[x > 2], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.repeat_interleave(torch.ones_like(x[:, 0]).long(), dim=0), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.tensor(x.tolist()), 1),
        (lambda x: torch.tensor(float(x[1, 2])), 1),
        (lambda x: torch.tensor(bool((x > 4).any())), 1),
        (lambda x: torch.zeros(2, 3).copy_(x), 1),
    ],
)
def test_the_stand_in_computes_and_counts_what_waits(permitted, waits):
    expected = permitted(X.clone())
    with stand_in_device() as device:
        x = X.to(DEVICE)
        device.syncs.clear()
        found = permitted(x)
        assert device.syncs.total() == waits
        torch.testing.assert_close(found.cpu(), expected)


def test_the_stand_in_differentiates_and_changes_views_in_place(device):
    x = X.to(DEVICE).requires_grad_()
    y = x * 3
    y[0] = 0.0
    (y**2).sum().backward()
    assert x.grad.device == DEVICE
    assert x.grad.tolist() == [[0, 0, 0], [54, 72, 90]]


CONFIDENCE = dict(type='GroundingConfidenceHead', neg_ratio=0.5)
MODELS_TRIED = {
    'plain': {},
    'confidence': dict(confidence_head=CONFIDENCE),
    'alone': dict(confidence_head=dict(CONFIDENCE, freeze_detector=True)),
    'several queries': dict(confidence_head=CONFIDENCE, num_queries=3),
    'trained towers': dict(
        visual_encoder=dict(frozen=False, with_cp=True),
        text_encoder=dict(frozen=False, prompt=dict(length=2)),
        fusion=dict(with_cp=True, pos_embed_init='sin_cos_2d'),
    ),
}


def build(kind):
    """A model without dropout, whose two ways are to be compared."""
    options = dict(MODELS_TRIED[kind])
    own = {k: options.pop(k, None) for k in ('confidence_head', 'num_queries')}
    cfg = dict(model_config(**options), confidence_head=own['confidence_head'])
    cfg['fusion']['dropout'] = 0.0
    return MODELS.build(dict(cfg, num_queries=own['num_queries'] or 1)).eval()


def any_targets(batch):
    """The batch with 0, 1, 2, 0, ... targets of its expressions, as they are packed."""
    number = 0
    for sample in batch['data_samples']:
        texts = [sample.text] if isinstance(sample.text, str) else sample.text
        labels = []
        for expression in range(len(texts)):
            labels += [expression] * (number % 3)
            number += 1
        corners = torch.rand(len(labels), 2, 2).sort(1).values * 20 + 2
        sample.gt_instances = InstanceData(
            bboxes=corners.flatten(1),
            labels=torch.tensor(labels, dtype=torch.long),
            label_names=[texts[i] for i in labels],
        )
    return batch


def step(model, batch):
    """Losses, gradients and predictions."""
    torch.manual_seed(5)  # of the negative pairs
    model.zero_grad()
    data = model.train().data_preprocessor(copy.deepcopy(batch), True)
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    with torch.no_grad():
        samples = model.eval().test_step(copy.deepcopy(batch))
    predicted = [sample.pred_instances for sample in samples]
    return dict(
        {k: v.detach() for k, v in losses.items()},
        **{n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        boxes=torch.cat([one.bboxes for one in predicted]),
        scores=torch.cat([one.scores for one in predicted]),
        labels=torch.cat([one.labels for one in predicted]),
    )


SINGLE = [(place, texts[0]) for place, texts in IMAGES]


@pytest.mark.parametrize(
    'kind, images', [*((kind, IMAGES) for kind in MODELS_TRIED), ('plain', SINGLE)]
)
def test_the_detector_is_the_same_on_another_device(kind, images):
    batch = make_batch(images)
    if kind == 'several queries':
        batch = any_targets(batch)
    model = build(kind)
    expected = step(model, batch)
    with stand_in_device():
        found = step(model.to(DEVICE), batch)
        assert {value.device for value in found.values()} == {DEVICE}
        found = {key: value.cpu() for key, value in found.items()}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'kind, ious, matchings',
    [
        ('plain', 1, 0),
        ('trained towers', 1, 0),
        ('confidence', 2, 0),
        ('alone', 2, 0),
        ('several queries', 2, 1),
    ],
)
def test_how_often_the_host_waits_in_a_training_step(device, kind, ious, matchings):
    """Transfer, forward, loss and backward: once for each IoU, and to match.

    MMDetection's IoU copies its epsilon to the device. The assignment of several
    queries is solved on the host, of all expressions after one transfer.
    """
    model = build(kind).to(DEVICE).train()
    batch = make_batch()
    if matchings:
        batch = any_targets(batch)
    device.syncs.clear()
    data = model.data_preprocessor(batch, True)
    assert not device.syncs.total(), device.syncs
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert device.syncs.total() == ious + matchings <= 2 + matchings, device.syncs


@pytest.mark.parametrize('kind', MODELS_TRIED)
def test_in_a_prediction_the_host_never_waits(device, kind):
    model = build(kind).to(DEVICE)
    # 32 expressions are fused at once.
    texts = [f'number {i}' for i in range(40)]
    for images in (IMAGES, [(IMAGES[0][0], texts)]):
        device.syncs.clear()
        with torch.no_grad():
            samples = model.test_step(make_batch(images))
        assert not device.syncs.total(), device.syncs
        assert len(samples[0].pred_instances) > 0


# Not causal, other vocabularies, no class token, masks in the tower.
FAMILIES = {
    'ViT-B-16-SigLIP2': 0,
    'PE-Core-bigG-14-448': 0,
    'MobileCLIP2-S0': 0,
    'coca_ViT-B-32': 0,
    'coca_roberta-ViT-B-32': 1,  # transformers asks whether the mask masks anything
}


@pytest.mark.parametrize('name, waits', FAMILIES.items())
def test_other_towers_on_another_device(name, waits, folders, monkeypatch):
    shrink_timm(monkeypatch)
    model = small_detector(small_arch(name, folders)).eval()
    size = model.visual_encoder.image_size[0]
    batch = make_batch([((0, 0, size, size // 2), ['left man', 'dog'])])
    batch['inputs'] = [torch.randint(0, 255, (3, size, size), dtype=torch.uint8)]
    batch['data_samples'][0].set_metainfo(dict(img_shape=(size, size)))
    with torch.no_grad():
        (expected,) = model.test_step(copy.deepcopy(batch))
        with stand_in_device() as device:
            model.to(DEVICE)
            device.syncs.clear()
            (found,) = model.test_step(batch)
            assert device.syncs.total() == waits, device.syncs
            boxes = found.pred_instances.bboxes.cpu()
    torch.testing.assert_close(
        boxes, expected.pred_instances.bboxes, atol=1e-4, rtol=1e-4
    )


def test_the_metric_takes_predictions_of_another_device(device):
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    pred = torch.tensor([[20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 10.0, 8.0]])
    metric = GroundingMetric()
    for number, boxes, scores in ((0, pred, [0.2, 0.9]), (1, pred[:1], [0.5])):
        found = dict(bboxes=boxes, scores=torch.tensor(scores))
        sample = dict(
            img_path='a.jpg',
            text='left man',
            sample_id=f'{number}',
            ori_shape=(40, 40),
            pred_instances={k: v.to(DEVICE) for k, v in found.items()},
            gt_instances=dict(bboxes=truth.to(DEVICE)),
        )
        metric.process(None, [sample])
    assert metric.evaluate(2)['grounding/miou'] == pytest.approx(0.4)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_inferencer_on_another_device(shapes, tmp_path, dtype):
    checkpoint = save_tiny(tmp_path / 'tiny.pth', seed=1, spread=20)
    files = sorted((shapes / 'images').glob('*.jpg'))[:3]
    given = [str(files[0]), Image.open(files[1]), np.asarray(Image.open(files[2]))]
    texts = [['red circle'], ['left', 'the star on the left'], ['star']]
    on_cpu = GroundingInferencer(checkpoint, device='cpu', dtype=dtype)
    expected = on_cpu(given, texts)['predictions']
    with stand_in_device():
        infer = GroundingInferencer(checkpoint, device=DEVICE, dtype=dtype)
        found = infer(given, texts, return_vis=True)['predictions']
    width = Image.open(files[0]).width
    atol = 1e-3 if dtype == torch.float32 else 0.03 * width
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one['bboxes'], other['bboxes'], atol=atol)
        assert one['scores'] == other['scores']


@pytest.fixture
def pool(shapes, sources):
    return DATASETS.build(pool_config(shapes, sources))


def test_the_reliability_hook_scores_on_another_device(pool):
    model = build('plain')
    hook = PseudoLabelReliabilityHook(batch_size=8, grouped=True)
    hook.view = evaluation_view(pool, TEST)
    expected = hook.score(model)
    with stand_in_device():
        found = hook.score(model.to(DEVICE))
    assert found == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.01


def test_the_clip_scorer_on_another_device(pool):
    clip = MODELS.build(
        agreement_config(Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py'))
    )
    view = evaluation_view(pool, AGREEMENT_PIPELINE)
    batches = plan_batches(view, 2, True, np.arange(12))
    scorer = AgreementScorer(view)
    expected = list(score_labels(clip, view, batches, scorer=scorer))
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    boxes = torch.tensor([[1.0, 2.0, 20.0, 30.0], [5.0, 6.0, 50.0, 39.0]])
    (alone,) = clip([image], [boxes], [['red star', 'circle']])
    with stand_in_device():
        clip.to(DEVICE)
        found = list(score_labels(clip, view, batches, scorer=scorer))
        moved = image.to(DEVICE), boxes.to(DEVICE)
        (there,) = clip(*([part] for part in moved), [['red star', 'circle']])
    for columns in zip(found, expected, strict=True):
        for one, other in zip(*columns, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    # Off the CPU, torchvision resizes in floats: a grey level here and there.
    torch.testing.assert_close(there, alone, atol=0.1, rtol=0)


def test_views_are_merged_on_another_device():
    """Of one image two views, one of them flipped, of several expressions."""
    model = GroundingTTAModel(build('confidence'))
    batch = make_batch(IMAGES[:1] * 2)
    batch['data_samples'][1].set_metainfo(dict(flip=True, flip_direction='horizontal'))
    views = {key: [[view] for view in value] for key, value in batch.items()}
    with torch.no_grad():
        (expected,) = model.test_step(copy.deepcopy(views))
    with stand_in_device(), torch.no_grad():
        (found,) = model.to(DEVICE).test_step(views)
    for key in ('bboxes', 'scores', 'labels'):
        one, other = (s.pred_instances[key].cpu() for s in (found, expected))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


def test_a_slim_checkpoint_does_not_depend_on_the_device():
    model = build('plain')

    def saved():
        checkpoint = dict(state_dict=model.state_dict())
        hook = SlimCheckpointHook()
        hook.before_save_checkpoint(SimpleNamespace(model=model), checkpoint)
        return checkpoint['state_dict']

    expected = saved()
    with stand_in_device():
        model.to(DEVICE)
        found = saved()
        assert torch.equal(found[FINGERPRINT], expected[FINGERPRINT])
        weights = model.fusion.reg_token.weight.detach()
        weights.zero_()
        model.load_state_dict(expected)  # from the CPU, as checkpoints come
        assert torch.equal(weights.cpu(), expected['fusion.reg_token.weight'])
