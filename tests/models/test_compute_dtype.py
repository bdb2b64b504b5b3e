"""Towers in float16 and bfloat16, and products in TF32: near, in float32 outside."""

import copy
from functools import partial

import pytest
import torch
from mmdet.registry import HOOKS, MODELS

from projects.clip_vg.deployment.export import split_detector

from ..helpers.configs import ARCH, model_config
from ..helpers.models import SIZE, initialised, make_batch

# Units in the last place of a significand: 11 and 8 bits.
ROUNDING = dict(float16=2**-11, bfloat16=2**-8)
OFFICIAL = dict(visual_encoder=dict(train_pos_embed=True), fusion=dict(dropout=0.0))


def build(compute_dtype=None, **changes):
    """A detector with the official positions, of one seed."""
    cfg = model_config(**copy.deepcopy(dict(OFFICIAL, **changes)))
    for tower in (cfg['visual_encoder'], cfg['text_encoder']):
        tower['compute_dtype'] = compute_dtype
    torch.manual_seed(0)
    model = initialised(MODELS.build(cfg))
    model.bbox_head.mlp.layers[-1].weight.data *= 20  # boxes that differ
    return model


def run(model, batch):
    """Losses, gradients and boxes of a training and a prediction step."""
    data = model.train().data_preprocessor(copy.deepcopy(batch), True)
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    with torch.no_grad():
        samples = model.eval().test_step(copy.deepcopy(batch))
    boxes = torch.cat([sample.pred_instances.bboxes for sample in samples])
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, grads, boxes / (2 * SIZE)  # images are twice the input


def cpu_computes_in(dtype):
    one = torch.ones(1, 1)
    with torch.autocast('cpu', dtype):
        return (one @ one).dtype == dtype


@pytest.mark.parametrize('dtype', ROUNDING)
def test_a_training_and_a_prediction_step_are_near_those_in_float32(dtype):
    if not cpu_computes_in(getattr(torch, dtype)):
        pytest.skip(f'this PyTorch has no autocast to {dtype} on a CPU')
    batch = make_batch()
    exact_losses, exact_grads, exact_boxes = run(build(), batch)
    model = build(dtype)
    seen = set()
    for tower in (model.visual_encoder.vit, model.text_encoder.transformer):
        block = tower.transformer.resblocks[0]
        block.mlp.c_fc.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    losses, grads, boxes = run(model, batch)
    assert seen == {getattr(torch, dtype)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {value.dtype for value in (*losses.values(), *grads.values())} == {
        torch.float32
    }
    difference = (boxes - exact_boxes).abs().max()
    assert 0 < difference < 10 * ROUNDING[dtype]
    for name, loss in losses.items():
        assert abs(loss - exact_losses[name]) < 10 * ROUNDING[dtype]
    assert grads.keys() == exact_grads.keys()
    assert 'visual_encoder.vit.positional_embedding' in grads
    whole, near = (
        torch.cat([grad.flatten() for grad in one.values()])
        for one in (exact_grads, grads)
    )
    assert (near - whole).norm() < 50 * ROUNDING[dtype] * whole.norm()


def test_maps_and_tokens_come_in_the_type_of_the_weights():
    encoder = MODELS.build(
        dict(
            type='CLIPVisualEncoder',
            arch=ARCH,
            extract_layers=(0, 1),
            out_maps=True,
            compute_dtype='bfloat16',
        )
    ).bfloat16()
    images = torch.rand(1, 3, SIZE, SIZE)
    assert {level.dtype for level in encoder(images.bfloat16())} == {torch.bfloat16}
    assert {level.dtype for level in encoder.float()(images)} == {torch.float32}


def test_what_is_exported_computes_in_float32():
    image_stage, grounding_stage = split_detector(build('bfloat16'))
    exact, _ = split_detector(build())
    images, kept = torch.rand(1, 3, SIZE, SIZE), torch.arange(17)[None]
    for one, other in zip(image_stage(images, kept), exact(images, kept), strict=True):
        assert torch.equal(one, other)
    assert grounding_stage.text_encoder.compute_dtype is None


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match=r"'half'.*visual"):
        build('half')


@pytest.mark.parametrize('precision', ['high', 'medium'])
def test_products_are_less_precise_during_a_run_alone(precision, request):
    # A setting of the process, which another test may have left.
    request.addfinalizer(
        partial(
            torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()
        )
    )
    torch.set_float32_matmul_precision('highest')
    batch = make_batch()
    _, _, exact_boxes = run(build(), batch)
    hook = HOOKS.build(dict(type='MatmulPrecisionHook', precision=precision))
    before = torch.get_float32_matmul_precision()
    hook.before_run(None)
    try:
        assert torch.get_float32_matmul_precision() == precision
        losses, grads, boxes = run(build(), batch)
    finally:
        hook.after_run(None)
    assert torch.get_float32_matmul_precision() == before == 'highest'
    # Whether anything is rounded, the processor decides.
    assert (boxes - exact_boxes).abs().max() < 10 * ROUNDING['bfloat16']
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert {grad.dtype for grad in grads.values()} == {torch.float32}


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match="'tf32'"):
        HOOKS.build(dict(type='MatmulPrecisionHook', precision='tf32'))
