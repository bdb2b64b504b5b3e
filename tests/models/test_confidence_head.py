"""The confidence head: off it changes nothing; on it learns what it should."""

import copy
import math
from unittest.mock import patch

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict as mmengine_load

from projects.clip_vg.checkpoints.frozen_weights import (
    FINGERPRINT,
    fingerprint,
    frozen_names,
    without_frozen,
)
from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights
from projects.clip_vg.models import GroundingConfidenceHead, clip_vg
from projects.clip_vg.models.confidence_head import sample_negative_pairs

from ..helpers.configs import model_config
from ..helpers.models import IMAGES, SIZE, make_batch, make_sample, prepared


def build(**options):
    """A tiny CLIPVG with a head of these options."""
    head = dict(type='GroundingConfidenceHead', **options)
    model = MODELS.build(dict(model_config(), confidence_head=head))
    model.init_weights()
    return model.eval()


def given_to_head(model, inputs, samples):
    """Tokens of own pairs, their IoUs, and tokens of negative pairs in a loss."""
    head = model.confidence_head
    with patch.object(head, 'loss', wraps=head.loss) as loss:
        model.loss(inputs, samples)
    return loss.call_args.args


def names_of_head(model):
    return {name for name in model.state_dict() if name.startswith('confidence_head.')}


def test_off_nothing_is_added(tiny_model):
    with_head = build()
    own = set(with_head.state_dict()) - names_of_head(with_head)
    assert set(tiny_model.state_dict()) == own
    assert len(names_of_head(with_head)) == 6
    losses = tiny_model.loss(*prepared(tiny_model, make_batch()))
    assert set(losses) == {'loss_bbox', 'loss_iou'}
    assert with_head.scored and not tiny_model.scored
    for answer in tiny_model.test_step(make_batch()):
        assert (answer.pred_instances.scores == 1).all()
        assert not answer.pred_instances.scored
    for answer in with_head.test_step(make_batch()):
        assert answer.pred_instances.scored


def test_boxes_and_their_losses_are_the_same_with_a_head(tiny_model):
    with_head = build(neg_ratio=0.5)
    state = with_head.state_dict()
    with_head.load_state_dict({**state, **tiny_model.state_dict()})
    batch = make_batch()
    losses = [
        model.loss(*prepared(model, batch, True)) for model in (tiny_model, with_head)
    ]
    assert set(losses[1]) == {'loss_bbox', 'loss_iou', 'loss_confidence'}
    for key, value in losses[0].items():
        assert torch.equal(value, losses[1][key]), key
    with torch.no_grad():
        answers = [
            model.test_step(copy.deepcopy(batch)) for model in (tiny_model, with_head)
        ]
    for one, other in zip(*answers, strict=True):
        assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)


@torch.no_grad()
def test_scores_are_shares_and_do_not_depend_on_the_grouping():
    model, batch = build(), make_batch()
    # Larger weights: an untrained head says about 0.5 to everything.
    model.confidence_head.mlp.layers[-1].weight.mul_(20)
    together = model.test_step(copy.deepcopy(batch))
    scores = torch.cat([answer.pred_instances.scores for answer in together])
    assert scores.shape == (8,) and ((scores >= 0) & (scores <= 1)).all()
    assert scores.std() > 0.01
    alone = [
        model.test_step(
            dict(
                inputs=[batch['inputs'][index].clone()],
                data_samples=[make_sample(letterbox, text)],
            )
        )[0].pred_instances.scores
        for index, (letterbox, texts) in enumerate(IMAGES)
        for text in texts
    ]
    torch.testing.assert_close(torch.cat(alone), scores, atol=1e-5, rtol=0)


def slow_iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inter = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inter / (sum(areas) - inter)


@torch.no_grad()
def test_targets_are_the_ious_of_the_clamped_answers():
    model = build()
    inputs, samples = prepared(model, make_batch())
    # Boxes that leave the padded input, as predictions do.
    model.bbox_head.mlp.layers[-1].bias.add_(torch.tensor([2.0, -2.0, 1.0, 1.0]))
    tokens, reached, _ = given_to_head(model, inputs, samples)
    answers = model.bbox_head(tokens).tolist()
    expected = []
    true = torch.cat([sample.gt_instances.bboxes for sample in samples]) / SIZE
    for (cx, cy, w, h), box in zip(answers, true.tolist(), strict=True):
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        expected.append(slow_iou([min(max(edge, 0), 1) for edge in corners], box))
    torch.testing.assert_close(reached, torch.tensor(expected), atol=1e-5, rtol=0)
    assert 0 < max(expected) < 1


def test_the_loss_is_the_cross_entropy_with_the_ious_and_zeros():
    head = GroundingConfidenceHead(8)
    tokens, absent = torch.randn(5, 8), torch.randn(3, 8)
    reached = torch.tensor([0.0, 1.0, 0.3, 0.8, 0.5])
    scores = head(torch.cat([tokens, absent])).tolist()
    expected = -sum(
        target * math.log(score) + (1 - target) * math.log(1 - score)
        for score, target in zip(scores, reached.tolist() + 3 * [0.0], strict=True)
    )
    loss = head.loss(tokens, reached, absent)['loss_confidence']
    assert loss.item() == pytest.approx(expected / 8, abs=1e-6)


def test_scores_of_presence_do_not_depend_on_the_boxes():
    model, other = build(target='presence'), build()
    other.load_state_dict(model.state_dict())
    inputs, samples = prepared(model, make_batch())
    tokens, reached, _ = given_to_head(model, inputs, samples)
    assert torch.equal(reached, torch.ones(8))
    expected = -model.confidence_head(tokens).log().mean()
    losses = model.loss(inputs, samples)
    torch.testing.assert_close(losses['loss_confidence'], expected)
    assert losses['loss_confidence'] != other.loss(inputs, samples)['loss_confidence']
    with pytest.raises(ValueError, match="target='score'"):
        build(target='score')


def test_another_loss_is_a_config():
    head = GroundingConfidenceHead(8, loss=dict(type='QualityFocalLoss'))
    tokens = torch.randn(4, 8)
    matched = head.loss(tokens, head(tokens), tokens[:0])['loss_confidence']
    missed = head.loss(tokens, 1 - head(tokens).round(), tokens[:0])['loss_confidence']
    assert matched < 1e-6 < missed


def test_a_negative_share_is_an_error():
    with pytest.raises(ValueError, match='neg_ratio=-0.5'):
        GroundingConfidenceHead(8, neg_ratio=-0.5)


TEXTS = [
    ['left man', 'the red bus'],
    ['Red dog.', 'left'],
    ['a bus', 'bird', 'bird'],
    ['BIRD', '', '?'],
    ['cat', 'a small cat'],
]


def slow_pairs(texts):
    """Every picture with every expression that may be asked about it."""

    def words(text):
        kept = [c for c in text.lower() if c.isalnum() or c == ' ']
        return set(''.join(kept).split())

    every = [(owner, text) for owner, own in enumerate(texts) for text in own]
    return {
        (picture, number)
        for picture, own in enumerate(texts)
        for number, (owner, text) in enumerate(every)
        if words(text)
        and not any(words(text) & words(said) for said in own)
        and all(words(text) != words(t) for other, t in every if other != owner)
    }


def test_all_expressions_of_other_pictures_that_share_no_word_are_drawn():
    drawn = list(zip(*sample_negative_pairs(TEXTS, 1000), strict=True))
    assert set(drawn) == slow_pairs(TEXTS)
    assert drawn == sorted(drawn) and len(drawn) == len(set(drawn))
    assert (2, 0) in drawn and (2, 2) in drawn  # "left man", "Red dog."
    assert (2, 1) not in drawn  # "the red bus" beside "a bus"
    assert not {6, 7} & {number for _, number in drawn}  # "bird" is said of two


def test_negative_pairs_are_drawn_at_random_from_all():
    every = slow_pairs(TEXTS)
    draws = []
    for seed in range(60):
        torch.manual_seed(seed)
        draws.append(frozenset(zip(*sample_negative_pairs(TEXTS, 3), strict=True)))
    assert all(len(draw) == 3 for draw in draws)
    assert frozenset.union(*draws) == every
    assert len(set(draws)) > len(draws) // 2


@pytest.mark.parametrize('seed', range(5))
def test_an_expression_of_the_picture_is_never_asked_as_absent(seed):
    rng = torch.Generator().manual_seed(seed)
    words = ['red', 'blue', 'star', 'one', 'circle', 'left', 'big', 'dog']

    def expression():
        chosen = torch.randint(len(words), (2,), generator=rng).tolist()
        return ' '.join(words[i] for i in chosen)

    texts = [[expression() for _ in range(3)] for _ in range(6)]
    every = [text for own in texts for text in own]
    pictures, numbers = sample_negative_pairs(texts, 9)
    assert len(pictures) == len(numbers) <= 9
    for picture, number in zip(pictures, numbers, strict=True):
        assert number // 3 != picture
        assert every[number] not in texts[picture]


def test_a_picture_alone_is_asked_nothing_else():
    assert sample_negative_pairs([['red dog', 'cat']], 5) == ([], [])
    model = build(neg_ratio=1.0)
    inputs, samples = prepared(model, make_batch(IMAGES[:1]))
    assert model.loss(inputs, samples)['loss_confidence'].isfinite()


@torch.no_grad()
@pytest.mark.parametrize('detach', [False, True])
def test_absent_tokens_are_those_of_asking_the_picture(detach):
    model = build(neg_ratio=1.0, detach=detach)
    batch = make_batch()
    inputs, samples = prepared(model, batch)
    every = [text for _, texts in IMAGES for text in texts]
    pairs = [0, 1, 1, 3], [2, 0, 4, 1]
    with patch.object(clip_vg, 'sample_negative_pairs', return_value=pairs):
        _, _, found = given_to_head(model, inputs, samples)
    for token, picture, number in zip(found, *pairs, strict=True):
        sample = copy.deepcopy(samples[picture])
        sample.set_metainfo(dict(text=every[number]))
        expected = model(inputs[picture : picture + 1], [sample], mode='tensor')[0]
        torch.testing.assert_close(token, expected, atol=1e-5, rtol=1e-5)


def test_absent_expressions_cost_one_more_fusion_and_no_encoding():
    model = build(neg_ratio=0.5).train()
    calls = []
    for name in ('visual_encoder', 'text_encoder', 'fusion'):
        getattr(model, name).register_forward_hook(
            lambda module, args, output, name=name: calls.append((name, len(output)))
        )
    model.loss(*prepared(model, make_batch(), training=True))
    assert calls == [
        ('visual_encoder', 4),
        ('text_encoder', 8),
        ('fusion', 8),
        ('fusion', 4),
    ]


def gradients(model, batch, keys=None):
    """Gradients of the sum of some losses, by parameter."""
    torch.manual_seed(1)
    model.zero_grad()
    losses = model.loss(*prepared(model, batch, training=True))
    sum(losses[key] for key in keys or losses).backward()
    return {
        name: p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


@pytest.mark.parametrize('detach', [False, True])
def test_what_the_confidence_trains(detach):
    model, batch = build(neg_ratio=0.5, detach=detach), make_batch()
    got = gradients(model, batch, ['loss_confidence'])
    assert {name for name in got if name in names_of_head(model)} == set(
        names_of_head(model)
    )
    parts = {name.split('.')[0] for name in got}
    assert parts == ({'confidence_head'} if detach else {'confidence_head', 'fusion'})
    with_head = gradients(model, batch)
    boxes_alone = gradients(model, batch, ['loss_bbox', 'loss_iou'])
    same = [torch.equal(with_head[name], boxes_alone[name]) for name in boxes_alone]
    assert all(same) == detach


def test_bfloat16():
    model, batch = build(neg_ratio=0.5), make_batch()
    with torch.no_grad():
        exact = model.test_step(copy.deepcopy(batch))
    with torch.autocast('cpu', torch.bfloat16):
        got = gradients(model.train(), batch)
    assert all(gradient.isfinite().all() for gradient in got.values())
    data = model.eval().to(torch.bfloat16).data_preprocessor(batch)
    with torch.no_grad():
        near = model(data['inputs'].bfloat16(), data['data_samples'], mode='predict')
    for one, other in zip(exact, near, strict=True):
        assert other.pred_instances.scores.dtype == torch.float32
        torch.testing.assert_close(
            one.pred_instances.scores, other.pred_instances.scores, atol=0.05, rtol=0
        )


def test_a_checkpoint_without_head_is_refused_unless_the_head_is_alone(tiny_model):
    with pytest.raises(ValueError, match='confidence_head.*freeze_detector=True'):
        refuse_other_weights(tiny_model.state_dict(), build())
    with pytest.raises(ValueError, match='6 unexpected.*confidence_head'):
        refuse_other_weights(build().state_dict(), tiny_model)
    refuse_other_weights(tiny_model.state_dict(), build(freeze_detector=True))


@pytest.mark.parametrize('slim', [False, True])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_head_alone_is_put_on_a_trained_model(tiny_model, slim, prefix):
    state = tiny_model.state_dict()
    model = build(freeze_detector=True)
    if slim:
        names = frozen_names(tiny_model)
        model.load_state_dict({**model.state_dict(), **state})
        sha256 = fingerprint(state, names)
        state = {**without_frozen(state, names), FINGERPRINT: sha256}
    head = copy.deepcopy(model.confidence_head.state_dict())
    holder = torch.nn.Module()
    holder.module = model
    target = holder if prefix else model
    state = {prefix + name: value for name, value in state.items()}
    mmengine_load(target, state, strict=False)
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    for name, value in head.items():
        assert torch.equal(model.confidence_head.state_dict()[name], value)


def test_alone_nothing_but_the_head_is_trained():
    model = build(freeze_detector=True, neg_ratio=0.5).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == names_of_head(model)
    assert not any(module.training for module in model.fusion.modules())
    assert model.confidence_head.training
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = model.loss(*prepared(model, make_batch(), training=True))
    sum(losses.values()).backward()
    optimizer.step()
    changed = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == names_of_head(model)


def test_a_head_learns_to_tell():
    """By heart: what each answer reaches, and 0 where nothing is meant."""
    head = GroundingConfidenceHead(16)
    tokens, absent = torch.randn(8, 16), torch.randn(4, 16)
    reached = torch.linspace(0.2, 0.9, 8)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(tokens, reached, absent)['loss_confidence'].backward()
        optimizer.step()
    with torch.no_grad():
        assert (head(tokens) - reached).abs().max() < 0.05
        assert head(absent).max() < 0.05
