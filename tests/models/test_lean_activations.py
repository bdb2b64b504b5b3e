"""Activations with less memory: values and gradients are those of PyTorch."""

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch.nn import functional as F

from projects.clip_vg.models.lean_activations import quick_gelu, relu_dropout


def run(function, x, upstream):
    """Output, gradient, and the bytes that are kept between the two passes."""
    x = x.clone().requires_grad_()
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # A product before, since an activation in place must not spoil its input.
        y = function(x * 2)
    y.backward(upstream)
    return y.detach(), x.grad, sum(kept.values())


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(2, 64, 128, generator=generator).unbind()
    return 3 * x, upstream


@pytest.mark.parametrize(
    'lean, plain, share',
    [
        (quick_gelu, QuickGELU(), 0.5),
        (
            lambda x: relu_dropout(x, 0.1),
            lambda x: F.dropout(F.relu(x, inplace=True), 0.1),
            0.5,
        ),
    ],
)
def test_values_and_gradients_are_pytorchs_with_half_of_the_memory(
    inputs, lean, plain, share
):
    y, grad, kept = run(lean, *inputs)
    expected, expected_grad, expected_kept = run(plain, *inputs)
    assert torch.equal(y, expected)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=1e-6)
    assert 0 < kept <= share * expected_kept


def test_gradients_are_those_of_finite_differences():
    x = torch.linspace(-3, 3, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quick_gelu, x)
    off = x.detach() + 0.01  # ReLU has no derivative at 0
    torch.manual_seed(0)
    y = relu_dropout(off.requires_grad_(), 0.5)
    y.sum().backward()
    assert set(off.grad.tolist()) == {0.0, 2.0}
    assert torch.equal(off.grad * off, y)


def test_without_a_gradient_values_are_the_same(inputs):
    x, _ = inputs
    assert torch.equal(quick_gelu(x), QuickGELU()(x))
    assert torch.equal(relu_dropout(x.clone(), 0.0), F.relu(x))


def test_dropout_of_everything_has_no_gradient(inputs):
    y, grad, _ = run(lambda x: relu_dropout(x, 1.0), *inputs)
    assert not y.any() and not grad.any()


def test_nan_stays_visible_in_the_gradient():
    x = torch.tensor([float('nan'), 1.0], requires_grad=True)
    relu_dropout(x * 1, 1e-6).backward(torch.tensor([float('nan'), 1.0]))
    assert x.grad[0].isnan()
