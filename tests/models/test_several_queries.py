"""A detector of several queries: 0..n boxes for an expression, each with a score."""

import copy
import math

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict as mmengine_load
from mmengine.structures import InstanceData

from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights
from projects.clip_vg.models import clip_vg

from ..helpers.configs import model_config
from ..helpers.models import IMAGES, SIZE, make_batch, make_sample, prepared

Q = 3
HEAD = dict(type='GroundingConfidenceHead')
# Targets of the expressions of the images, 8 of them.
COUNTS = [[2, 0], [1], [0, 3, 1, 4], [0]]


def build(queries=Q, head=HEAD, **options):
    """A tiny CLIPVG whose scores and boxes differ."""
    cfg = dict(model_config(), confidence_head=head, num_queries=queries, **options)
    model = MODELS.build(cfg)
    model.init_weights()
    if head is not None:
        torch.nn.init.normal_(model.confidence_head.mlp.layers[-1].weight, std=0.4)
    return model.eval()


def with_targets(batch, counts=COUNTS):
    """The batch with so many boxes for its expressions."""
    for sample, own in zip(batch['data_samples'], counts, strict=True):
        labels = [number for number, count in enumerate(own) for _ in range(count)]
        corners = (torch.rand(len(labels), 2, 2) * (SIZE - 1)).sort(1).values
        sample.gt_instances = InstanceData(
            bboxes=corners.flatten(1) + torch.tensor([0, 0, 1, 1]),
            labels=torch.tensor(labels, dtype=torch.long),
            label_names=[sample.text[number] for number in labels],
        )
    return batch


def rows(model, batch, key='bboxes'):
    """Predictions of all expressions, (E, Q, ...)."""
    predicted = model.test_step(copy.deepcopy(batch))
    whole = torch.cat([sample.pred_instances[key] for sample in predicted])
    return whole.unflatten(0, (-1, model.num_queries))


@torch.no_grad()
def test_each_expression_has_boxes_with_its_number_and_scores():
    model = build()
    for sample, (_, texts) in zip(model.test_step(make_batch()), IMAGES, strict=True):
        found = sample.pred_instances
        assert found.labels.tolist() == [i for i in range(len(texts)) for _ in range(Q)]
        assert found.label_names == [texts[i] for i in found.labels.tolist()]
        assert ((found.scores > 0) & (found.scores < 1)).all()
        assert len(found.bboxes) == len(found) == Q * len(texts)
    boxes = rows(model, make_batch())
    assert boxes.std(1).max() > 0.01 * SIZE  # queries differ
    assert boxes.std(0).max() > 0.01 * SIZE  # and expressions


@torch.no_grad()
@pytest.mark.parametrize('at_once', [1, 3])
def test_predictions_do_not_depend_on_the_grouping(monkeypatch, at_once):
    model, batch = build(), make_batch()
    boxes, scores = rows(model, batch), rows(model, batch, 'scores')
    monkeypatch.setattr(clip_vg, '_FUSED_AT_ONCE', at_once)
    alone = [
        dict(
            inputs=[batch['inputs'][index].clone()],
            data_samples=[make_sample(letterbox, text)],
        )
        for index, (letterbox, texts) in enumerate(IMAGES)
        for text in texts
    ]
    for key, together, size in (('bboxes', boxes, SIZE), ('scores', scores, 1)):
        found = torch.cat([rows(model, one, key) for one in alone])
        torch.testing.assert_close(found, together, atol=1e-5 * size, rtol=0)
        chunked = rows(model, batch, key)
        torch.testing.assert_close(chunked, together, atol=1e-5 * size, rtol=0)


def reference_losses(model, batch):
    """Losses of each expression by the definition, one at a time."""
    inputs, samples = prepared(model, batch)
    with torch.no_grad():
        tokens = model(inputs, samples, mode='tensor')
        raw = model.bbox_head(tokens).unflatten(0, (-1, Q))
        boxes = model._boxes(tokens).unflatten(0, (-1, Q))
        scores = model.confidence_head(tokens).unflatten(0, (-1, Q))
    l1 = giou = bce = 0.0
    matched = expression = 0
    for sample in samples:
        truth = sample.gt_instances
        for number in range(len(sample.text)):
            own = truth.bboxes[truth.labels == number] / SIZE
            reached = [0.0] * Q
            for query, box in best_matching(
                boxes[expression], scores[expression], own
            ).items():
                predicted = raw[expression, query]
                target = torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
                l1 += (predicted - target).abs().sum().item()
                corners = torch.cat(
                    [
                        predicted[:2] - predicted[2:] / 2,
                        predicted[:2] + predicted[2:] / 2,
                    ]
                )
                giou += 1 - slow_giou(corners.tolist(), box.tolist())[1]
                clamped = boxes[expression, query].tolist()
                reached[query] = slow_giou(clamped, box.tolist())[0]
                matched += 1
            for score, target in zip(scores[expression].tolist(), reached, strict=True):
                bce -= target * math.log(score) + (1 - target) * math.log(1 - score)
            expression += 1
    return dict(
        loss_bbox=l1 / matched,
        loss_iou=giou / matched,
        loss_confidence=bce / expression,
    )


def slow_giou(one, other):
    """IoU and GIoU of two boxes."""
    inter = max(0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0, min(one[3], other[3]) - max(one[1], other[1])
    )
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - inter
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (
        max(one[3], other[3]) - min(one[1], other[1])
    )
    return inter / union, inter / union - (hull - union) / hull


def best_matching(boxes, scores, targets):
    """Targets by their queries; the matching itself has tests of its own."""
    from mmdet.registry import TASK_UTILS

    from projects.clip_vg.models.matching import MATCHER, match_targets

    found = match_targets(
        TASK_UTILS.build(MATCHER),
        boxes[None],
        scores.logit()[None],
        targets,
        [0] * len(targets),
    )
    return {int(q): targets[t] for q, t in zip(*found, strict=True)}


def test_losses_equal_the_definition():
    """Boxes over matched queries; scores over expressions, summed over queries."""
    model, batch = build(), with_targets(make_batch())
    losses = model.loss(*prepared(model, batch))
    expected = reference_losses(model, batch)
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value, abs=1e-4), key


def test_losses_do_not_depend_on_the_order_of_targets():
    model, batch = build(), with_targets(make_batch())
    expected = model.loss(*prepared(model, batch))
    for sample in batch['data_samples']:
        own = sample.gt_instances
        sample.gt_instances = own[torch.randperm(len(own))]
    for key, value in model.loss(*prepared(model, batch)).items():
        torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('queries', [1, Q])
def test_no_target_trains_the_scores_alone(queries):
    model = build(queries)
    batch = with_targets(make_batch(), [[0] * len(own) for own in COUNTS])
    losses = model.loss(*prepared(model, batch))
    assert losses['loss_bbox'] == losses['loss_iou'] == 0
    scores = rows(model, batch, 'scores')
    expected = -(1 - scores).log().sum(1).mean()
    torch.testing.assert_close(losses['loss_confidence'], expected)
    sum(losses.values()).backward()
    assert model.confidence_head.mlp.layers[0].weight.grad.abs().sum() > 0
    assert model.fusion.reg_token.weight.grad.abs().sum() > 0


def test_one_query_with_several_targets_takes_the_cheapest():
    model = build(1)
    batch = with_targets(make_batch(IMAGES[1:2]), [[3]])
    losses = model.loss(*prepared(model, batch))
    truth = batch['data_samples'][0].gt_instances
    each = []
    for number in range(3):
        batch['data_samples'][0].gt_instances = truth[number]
        each.append(model.loss(*prepared(model, batch)))
    costs = [one['loss_bbox'] + one['loss_iou'] for one in each]
    cheapest = each[min(range(3), key=lambda i: float(costs[i]))]
    for key, value in losses.items():
        torch.testing.assert_close(value, cheapest[key])


def test_without_scores_an_expression_without_target_is_an_error():
    model = build(1, head=None)
    batch = with_targets(make_batch(IMAGES[:1]), [[1, 0]])
    with pytest.raises(ValueError, match=f"a.jpg: '{IMAGES[0][1][1]}'"):
        model.loss(*prepared(model, batch))
    with pytest.raises(ValueError, match='num_queries=3'):
        build(head=None)


def test_every_trained_weight_gets_a_gradient():
    model = build(head=dict(HEAD, neg_ratio=0.5)).train()
    batch = with_targets(make_batch())
    losses = model.loss(*prepared(model, batch, training=True))
    sum(losses.values()).backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    assert got == {name for name, p in model.named_parameters() if p.requires_grad}
    assert model.fusion.reg_token.weight.grad.abs().sum(1).gt(0).all()


def test_the_number_of_queries_is_in_one_weight():
    one, several = (build(queries).state_dict() for queries in (1, Q))
    shapes = [{k: tuple(v.shape) for k, v in state.items()} for state in (one, several)]
    assert shapes[0].keys() == shapes[1].keys()
    different = {key for key in shapes[0] if shapes[0][key] != shapes[1][key]}
    assert different == {'fusion.reg_token.weight'}


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('head', [None, HEAD])
def test_a_checkpoint_of_one_query_is_fine_tuned_to_several(head, prefix):
    given = build(1, head).state_dict()
    model = build()
    own = copy.deepcopy(model.state_dict())
    target = model
    if prefix:
        target = torch.nn.Module()
        target.module = model
    # As `load_from`; scores and tests need a checkpoint of as many.
    mmengine_load(target, {prefix + k: v for k, v in given.items()}, strict=False)
    for name, value in model.state_dict().items():
        if name == 'fusion.reg_token.weight':
            assert torch.equal(value[:1], given[name])
            assert torch.equal(value[1:], own[name][1:])
        else:
            assert torch.equal(value, given.get(name, own[name])), name
    assert not torch.equal(own['fusion.reg_token.weight'][:1], value[:1])
    with pytest.raises(ValueError, match=r'reg_token.weight \(1, 16\)|confidence head'):
        refuse_other_weights(given, model)


def test_which_scores_are_shown():
    assert build(1).score_thr == 0  # the published model shows every box
    assert build().score_thr == 0.5
    assert build(test_cfg=dict(score_thr=0.3)).score_thr == 0.3


def test_another_assigner_is_a_config():
    costs = [dict(type='BBoxL1Cost', box_format='xywh', weight=1.0)]
    assigner = dict(type='HungarianAssigner', match_costs=costs)
    model = build(train_cfg=dict(assigner=assigner))
    batch = with_targets(make_batch(IMAGES[1:2]), [[1]])
    losses = model.loss(*prepared(model, batch))
    predicted = rows(model, batch)[0]  # of an image that fills the input, in half size
    center = (predicted[:, :2] + predicted[:, 2:]) / 4
    boxes = torch.cat([center, (predicted[:, 2:] - predicted[:, :2]) / 2], 1) / SIZE
    (truth,) = batch['data_samples'][0].gt_instances.bboxes / SIZE
    target = torch.cat([(truth[:2] + truth[2:]) / 2, truth[2:] - truth[:2]])
    # Clamped boxes are compared in the matching, whole ones in the loss.
    tokens = model(*prepared(model, batch), mode='tensor')
    whole = (model.bbox_head(tokens) - target).abs().sum(1)
    expected = whole[(boxes - target).abs().sum(1).argmin()]
    torch.testing.assert_close(losses['loss_bbox'], expected, atol=1e-5, rtol=1e-5)


def test_it_learns_none_one_and_several():
    """Overfits 3 expressions: a box over 0.5 for each target, and none else."""
    batch = with_targets(make_batch(IMAGES[:2]), [[2, 0], [1]])
    model = build().train()
    model.fusion.layers.apply(lambda module: setattr(module, 'dropout', 0.0))
    inputs, samples = prepared(model, batch, training=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        sum(model.loss(inputs, samples).values()).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = model.eval().predict(inputs, samples, rescale=False)
    for sample in predicted:
        found, truth = sample.pred_instances, sample.gt_instances
        shown = found[found.scores >= model.score_thr]
        assert sorted(shown.labels.tolist()) == sorted(truth.labels.tolist())
        for box, label in zip(truth.bboxes.tolist(), truth.labels, strict=True):
            own = shown.bboxes[shown.labels == label].tolist()
            assert sum(slow_giou(one, box)[0] >= 0.5 for one in own) == 1
