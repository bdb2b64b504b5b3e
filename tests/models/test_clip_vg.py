"""The detector: as published, whatever is grouped, and frozen where it should be."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData

from benchmarks.published_path import PublishedPath
from projects.clip_vg.models import clip_vg
from projects.clip_vg.models.box_head import true_boxes
from projects.clip_vg.models.clip_vg import patch_padding
from projects.clip_vg.models.data_preprocessor import pixel_padding
from projects.clip_vg.models.predictions import instances_of

from ..helpers.configs import model_config
from ..helpers.models import (
    IMAGES,
    SIZE,
    make_batch,
    make_sample,
    prepared,
    symbol_texts,
)


@pytest.fixture(params=['plain', 'rectangle', 'sin_cos', 'one_layer'])
def any_model(request):
    changes = {
        'plain': {},
        'rectangle': dict(fusion=dict(embed_dims=24)),
        'sin_cos': dict(fusion=dict(pos_embed_init='sin_cos_2d')),
        'one_layer': dict(fusion=dict(num_layers=1)),
    }[request.param]
    model = MODELS.build(model_config(**changes))
    model.init_weights()
    return model.eval()


@torch.no_grad()
def test_boxes_equal_the_published_way(any_model):
    inputs, samples = prepared(any_model, make_batch())
    fast = any_model.bbox_head(any_model(inputs, samples, mode='tensor'))
    padding = patch_padding(
        pixel_padding(samples, inputs), any_model.visual_encoder.grid_size
    )
    published = PublishedPath(any_model).eval()
    slow = [
        published(inputs[i : i + 1], padding[i : i + 1], [text])[0]
        for i, sample in enumerate(samples)
        for text in sample.text
    ]
    torch.testing.assert_close(fast, torch.stack(slow), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('at_once', [1, 2, 3, 5])
def test_answers_do_not_depend_on_how_many_are_fused_at_once(
    tiny_model, monkeypatch, at_once
):
    batch = make_batch()
    together = tiny_model.test_step(copy.deepcopy(batch))
    monkeypatch.setattr(clip_vg, '_FUSED_AT_ONCE', at_once)
    for one, other in zip(together, tiny_model.test_step(batch), strict=True):
        torch.testing.assert_close(
            one.pred_instances.bboxes,
            other.pred_instances.bboxes,
            atol=1e-5 * SIZE,
            rtol=0,
        )


@torch.no_grad()
def test_answers_do_not_depend_on_the_grouping(tiny_model):
    batch = make_batch()
    together = tiny_model.test_step(copy.deepcopy(batch))
    for index, (letterbox, texts) in enumerate(IMAGES):
        for position, text in enumerate(texts):
            alone = tiny_model.test_step(
                dict(
                    inputs=[batch['inputs'][index].clone()],
                    data_samples=[make_sample(letterbox, text)],
                )
            )[0].pred_instances
            torch.testing.assert_close(
                alone.bboxes[0],
                together[index].pred_instances.bboxes[position],
                atol=1e-5 * SIZE,
                rtol=0,
            )
            assert alone.label_names == [text]


def padded_boxes(model, inputs, samples):
    """Predictions (E, 4), xyxy in [0, 1] of the padded input."""
    predicted = model.predict(inputs, samples, rescale=False)
    return torch.cat([sample.pred_instances.bboxes for sample in predicted]) / SIZE


@torch.no_grad()
def test_symbols_are_answered_as_alone_and_as_published(tiny_model):
    """CLIP's id of "!" in a run of symbols is 0, as that of the filling."""
    texts = symbol_texts(40)
    batch = make_batch([((0, 4, 32, 24), texts)])
    inputs, samples = prepared(tiny_model, batch)
    boxes = padded_boxes(tiny_model, inputs, samples)
    assert boxes.std(0).max() > 1e-3  # they depend on the text
    alone = []
    for text in texts:
        samples[0].set_metainfo(dict(text=text))
        alone.append(padded_boxes(tiny_model, inputs, samples))
    torch.testing.assert_close(boxes, torch.cat(alone), atol=1e-5, rtol=0)
    padding = patch_padding(
        pixel_padding(samples, inputs), tiny_model.visual_encoder.grid_size
    )
    published = PublishedPath(tiny_model).eval()
    slow = torch.cat([published(inputs, padding, [text]) for text in texts])
    torch.testing.assert_close(
        bbox_cxcywh_to_xyxy(slow).clamp(0, 1), boxes, atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_the_letterbox_is_never_seen_by_the_fusion(tiny_model):
    """Black or noisy, the border is zero after normalisation."""
    batch = make_batch()
    first = tiny_model.test_step(copy.deepcopy(batch))
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        left, top, width, height = sample.letterbox
        border = torch.ones(SIZE, SIZE, dtype=torch.bool)
        border[top : top + height, left : left + width] = False
        image[:, border] = torch.randint(
            0, 255, (3, int(border.sum())), dtype=torch.uint8
        )
    second = tiny_model.test_step(batch)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)


@torch.no_grad()
def test_boxes_come_back_to_the_original_picture(tiny_model):
    batch = make_batch()
    inputs, samples = prepared(tiny_model, batch)
    padded = tiny_model.predict(inputs, copy.deepcopy(samples), rescale=False)
    original = tiny_model.predict(inputs, samples)
    for one, other, (letterbox, _) in zip(padded, original, IMAGES, strict=True):
        boxes = one.pred_instances.bboxes
        assert (boxes >= 0).all() and (boxes <= SIZE).all()
        offset = torch.tensor([*letterbox[:2], *letterbox[:2]])
        torch.testing.assert_close((boxes - offset) * 2, other.pred_instances.bboxes)


def wide_samples():
    """Of inputs of 40 x 20 (H, W), with images that were scaled unequally."""
    samples = []
    for scales, letterbox, count in (
        ((0.5, 0.25), (3, 5, 10, 30), 1),
        ((2.0, 4.0), (0, 1, 20, 38), 2),
    ):
        sample = make_sample(letterbox, ['a'] * count)
        sample.set_metainfo(
            dict(batch_input_shape=(40, 20), scale_factor=scales, letterbox=letterbox)
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[2.0, 4.0, 12.0, 36.0]] * count)
        )
        samples.append(sample)
    return samples


def test_frames_of_inputs_that_are_no_squares_by_hand():
    true = true_boxes(wide_samples(), torch.zeros(1))
    torch.testing.assert_close(true, torch.tensor([[0.1, 0.1, 0.6, 0.9]] * 3))
    padded = instances_of(wide_samples(), true, torch.ones(3), rescale=False)
    for own, sample in zip(padded, wide_samples(), strict=True):
        torch.testing.assert_close(own.bboxes, sample.gt_instances.bboxes)
    first, second = instances_of(wide_samples(), true, torch.ones(3))
    torch.testing.assert_close(first.bboxes, torch.tensor([[-2.0, -4.0, 18.0, 124.0]]))
    torch.testing.assert_close(
        second.bboxes, torch.tensor([[1.0, 0.75, 6.0, 8.75]] * 2)
    )


def test_the_border_is_zero_after_normalisation(tiny_model):
    batch = make_batch()
    inputs, _ = prepared(tiny_model, batch)
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    for image, given, (letterbox, _) in zip(
        inputs, batch['inputs'], IMAGES, strict=True
    ):
        left, top, width, height = letterbox
        expected = torch.zeros(3, SIZE, SIZE)
        shown = (slice(None), slice(top, top + height), slice(left, left + width))
        expected[shown] = ((given.flip(0) - mean) / std)[shown]  # BGR to RGB
        torch.testing.assert_close(image, expected)


def test_loss_of_a_batch_is_the_mean_over_its_expressions(tiny_model):
    batch = make_batch()
    inputs, samples = prepared(tiny_model, batch)
    together = tiny_model.loss(inputs, samples)
    sums = dict.fromkeys(together, 0.0)
    for index, sample in enumerate(samples):
        for key, value in tiny_model.loss(inputs[index : index + 1], [sample]).items():
            sums[key] += value * len(sample.text)
    for key, value in together.items():
        torch.testing.assert_close(value, sums[key] / 8, atol=1e-5, rtol=1e-5)


def test_the_loss_is_zero_for_the_true_boxes(tiny_model, monkeypatch):
    inputs, samples = prepared(tiny_model, make_batch())
    corners = torch.cat([s.gt_instances.bboxes for s in samples]) / SIZE
    center, size = (
        (corners[:, :2] + corners[:, 2:]) / 2,
        corners[:, 2:] - corners[:, :2],
    )
    true = torch.cat([center, size], 1)
    monkeypatch.setattr(tiny_model.bbox_head, 'forward', lambda token: true)
    losses = tiny_model.loss(inputs, samples)
    assert losses['loss_bbox'] < 1e-6 and losses['loss_iou'] < 1e-4


def test_losses_equal_the_definition(tiny_model):
    """L1 summed over the four numbers, 1 - GIoU; both averaged over expressions."""
    inputs, samples = prepared(tiny_model, make_batch())
    losses = tiny_model.loss(inputs, samples)
    pred = tiny_model.bbox_head(tiny_model(inputs, samples, mode='tensor')).tolist()
    true = (torch.cat([s.gt_instances.bboxes for s in samples]) / SIZE).tolist()
    l1 = giou = 0.0
    for (cx, cy, w, h), (x1, y1, x2, y2) in zip(pred, true, strict=True):
        target = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        l1 += sum(abs(a - b) for a, b in zip((cx, cy, w, h), target, strict=True))
        a1, b1, a2, b2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        inter = max(0, min(a2, x2) - max(a1, x1)) * max(0, min(b2, y2) - max(b1, y1))
        union = w * h + (x2 - x1) * (y2 - y1) - inter
        hull = (max(a2, x2) - min(a1, x1)) * (max(b2, y2) - min(b1, y1))
        giou += 1 - (inter / union - (hull - union) / hull)
    assert abs(losses['loss_bbox'].item() - l1 / 8) < 1e-5
    assert abs(losses['loss_iou'].item() - giou / 8) < 1e-5


def test_patches_are_padding_by_their_centre():
    """Without antialiasing; halves (two of four pixels) round to even: valid."""
    padding = torch.zeros(1, 32, 32, dtype=torch.bool)
    padding[:, :3] = True  # the first row of patches has 8: its centre is valid
    assert not patch_padding(padding, (4, 4)).any()
    padding[:, :4] = True  # the pixel above the centre is padding, that below is not
    assert not patch_padding(padding, (4, 4)).any()
    padding[:, :5] = True
    rows = patch_padding(padding, (4, 4)).view(4, 4)
    assert rows[0].all() and not rows[1:].any()


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('train_pos_embed', [False, True])
def test_every_trained_weight_gets_a_gradient_and_no_frozen_one(train_pos_embed):
    model = MODELS.build(
        model_config(visual_encoder=dict(train_pos_embed=train_pos_embed))
    ).train()
    losses = model.loss(*prepared(model, make_batch(), training=True))
    sum(losses.values()).backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    assert got == trained_names(model)
    clip = {name for name in got if 'encoder' in name}
    expected = {'visual_encoder.vit.positional_embedding'} if train_pos_embed else set()
    assert clip == expected


def test_frozen_towers_stay_in_eval_mode_and_store_nothing():
    model = MODELS.build(model_config()).train()
    assert model.fusion.training
    assert not any(
        module.training
        for tower in (model.visual_encoder, model.text_encoder)
        for module in tower.modules()
    )
    inputs, samples = prepared(model, make_batch(), training=True)
    assert not model.extract_feat(inputs).requires_grad


def test_recomputing_activations_changes_no_gradient():
    plain = MODELS.build(model_config(visual_encoder=dict(frozen=False)))
    saving = MODELS.build(
        model_config(
            visual_encoder=dict(frozen=False, with_cp=True),
            fusion=dict(with_cp=True, dropout=0.0),
        )
    )
    plain.fusion.layers.apply(lambda m: setattr(m, 'dropout', 0.0))
    saving.load_state_dict(plain.state_dict())
    batch = make_batch()
    for model in (plain.train(), saving.train()):
        losses = model.loss(*prepared(model, batch, training=True))
        sum(losses.values()).backward()
    for (name, one), other in zip(
        plain.named_parameters(), saving.parameters(), strict=True
    ):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=name)


@torch.no_grad()
def test_bfloat16_answers_are_near(tiny_model):
    batch = make_batch()
    exact = tiny_model.test_step(copy.deepcopy(batch))
    with torch.autocast('cpu', torch.bfloat16):
        near = tiny_model.test_step(batch)
    for one, other in zip(exact, near, strict=True):
        difference = one.pred_instances.bboxes - other.pred_instances.bboxes
        assert difference.abs().max() < 0.05 * SIZE * 2
        assert other.pred_instances.bboxes.dtype == torch.float32


@pytest.mark.parametrize('text', [None, []])
def test_no_expression_is_an_error(tiny_model, text):
    batch = make_batch(IMAGES[:1])
    batch['data_samples'][0].set_metainfo(dict(text=text))
    with pytest.raises(ValueError, match=r'a\.jpg has no expression'):
        tiny_model.test_step(batch)


def test_an_expression_that_is_no_string_is_named(tiny_model):
    batch = make_batch(IMAGES[:1])
    batch['data_samples'][0].set_metainfo(dict(text=['dog', 5]))
    with pytest.raises(ValueError, match='int: 5'):
        tiny_model.test_step(batch)


@torch.no_grad()
def test_an_empty_expression_has_an_answer(tiny_model):
    batch = make_batch([(IMAGES[0][0], ['', 'dog'])])
    boxes = tiny_model.test_step(batch)[0].pred_instances.bboxes
    assert boxes.isfinite().all() and len(boxes) == 2


def test_another_input_size_is_an_error(tiny_model):
    with pytest.raises(ValueError, match=r'\(32, 32\).*\(40, 40\)'):
        tiny_model.extract_feat(torch.zeros(1, 3, 40, 40))


def test_parameters_of_the_b16_config():
    """Counts of the release, minus what it builds and never uses (method, 1)."""
    from mmengine.config import Config

    from ..helpers import ROOT

    cfg = Config.fromfile(ROOT / 'configs/clip_vg_refcoco.py').model
    with torch.device('meta'):
        model = MODELS.build(cfg)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 21_832_964 - 262_656 == 21_570_308
    clip = {name for name in trained_names(model) if 'encoder' in name}
    assert clip == {'visual_encoder.vit.positional_embedding'}
    # Not kept: visu_proj, ln_post (2 x 768), proj (768 x 512), logit_scale.
    total = sum(p.numel() for p in model.parameters())
    assert total == 171_302_405 - 262_656 - 2 * 768 - 768 * 512 - 1


def release_hits(pred, samples):
    """The release's evaluation: padded frame, corners clamped to it, IoU >= 0.5."""
    hits = []
    for (cx, cy, w, h), sample in zip(pred.tolist(), samples, strict=True):
        box = [
            min(max(v, 0), 1) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        ]
        left, top = sample.letterbox[:2]
        scale = sample.scale_factor[0]
        shift = (left, top, left, top)
        true = [
            (edge * scale + offset) / SIZE
            for edge, offset in zip(sample.original.tolist(), shift, strict=True)
        ]
        width = min(box[2], true[2]) - max(box[0], true[0])
        height = min(box[3], true[3]) - max(box[1], true[1])
        inter = max(width, 0) * max(height, 0)
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, true)]
        hits.append(inter / (sum(areas) - inter) >= 0.5)
    return hits


def test_hits_are_those_of_the_release(tiny_model, monkeypatch):
    """On random boxes, some beyond the border, in the original frame as in its own."""
    from projects.clip_vg.evaluation import GroundingMetric

    pictures = [(IMAGES[i % 4][0], f'text {i}') for i in range(300)]
    batch = make_batch(pictures)
    inputs, samples = prepared(tiny_model, batch)
    padded = torch.cat([s.gt_instances.bboxes for s in samples])
    center = (padded[:, :2] + padded[:, 2:]) / 2 / SIZE
    size = (padded[:, 2:] - padded[:, :2]) / SIZE
    pred = torch.cat([center, size], 1)
    pred = pred + torch.randn(300, 4) * 0.12 * torch.cat([size, size], 1)
    pred[::7, 2:] += 0.8
    monkeypatch.setattr(tiny_model.bbox_head, 'forward', lambda _: pred)
    metric = GroundingMetric()
    for i, (sample, box) in enumerate(zip(samples, padded, strict=True)):
        left, top = sample.letterbox[:2]
        offset = torch.tensor([left, top, left, top])
        original = (box - offset) / sample.scale_factor[0]
        sample.set_metainfo(dict(original=original, sample_id=f'{i:03d}'))
        sample.gt_instances = InstanceData(bboxes=original[None])
    answers = tiny_model.predict(inputs, samples)
    metric.process(None, [answer.to_dict() for answer in answers])
    ours = [result['iou'] >= 0.5 for result in metric.results]
    expected = release_hits(pred, samples)
    assert ours == expected
    assert 50 < sum(ours) < 280
