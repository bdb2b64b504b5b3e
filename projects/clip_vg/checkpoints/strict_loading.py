"""Weights of another model are refused by our tools; MMEngine's loader only warns."""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from .frozen_weights import FINGERPRINT, frozen_names

__all__ = ['refuse_broken_weights', 'refuse_other_weights']

_HEAD = 'confidence_head.'


def refuse_other_weights(state: Mapping[str, Any], model: nn.Module) -> None:
    """Compare names and shapes of a checkpoint's weights with a model's.

    Fine-tuning (``load_from``) may begin with the weights of another model; a score,
    a prediction or a resumed training run would be wrong silently.

    Args:
        state (Mapping[str, Any]): The checkpoint's weights.
        model (nn.Module): The model to load them into, also in a wrapper; on any
            device, the meta device included. Of a detector without
            ``loads_strictly``, which :obj:`CLIPVG` has, nothing is refused, as in
            MMDetection.

    Raises:
        ValueError: One is missing, unexpected or of another shape.
    """
    net: Any = model
    # DDP and test-time augmentation wrap the detector.
    while is_model_wrapper(net) or isinstance(net, BaseTTAModel):
        net = net.module
    if not getattr(net, 'loads_strictly', False):
        return
    if not all(isinstance(value, Tensor) for value in state.values()):
        keys = [str(key)[:40] for key in list(state)[:8]]
        raise ValueError(
            f'The checkpoint has no weights under "state_dict"; its keys are {keys}.'
        )
    given = {
        name.removeprefix('module.'): tuple(value.shape)
        for name, value in state.items()
    }
    # Shapes alone, so that the model may be on the meta device.
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    missing = own.keys() - given.keys()
    if given.pop(FINGERPRINT, None) is not None:
        # Their sha256 is compared when they are loaded.
        missing -= set(frozen_names(net))
    if net.confidence_head is not None and not any(n.startswith(_HEAD) for n in given):
        _check_missing_head(net)
        missing = {name for name in missing if not name.startswith(_HEAD)}
    wrong = {
        'missing': sorted(missing),
        'unexpected': sorted(given.keys() - own.keys()),
        'of another shape': [
            f'{name} {given[name]} instead of {own[name]}'
            for name in sorted(own.keys() & given.keys())
            if given[name] != own[name]
        ],
    }
    differences = [f'{len(v)} {k}, e.g. {v[:2]}' for k, v in wrong.items() if v]
    if differences:
        raise ValueError(
            f'The checkpoint is not of this model: {"; ".join(differences)}. Build the '
            'model with the config that the checkpoint was trained with (it is in '
            "its meta['cfg'])."
        )


def _check_missing_head(model: Any) -> None:
    """Refuse a checkpoint without confidence head, unless it is to be trained."""
    if not model.confidence_head.freeze_detector:
        raise ValueError(
            f'The checkpoint has no confidence head (no entry {_HEAD}*), the '
            'config has one. Leave `confidence_head` out to use the checkpoint as '
            'it was trained, or train a head on top of it with '
            "confidence_head=dict(type='GroundingConfidenceHead', "
            'freeze_detector=True).'
        )
    print_log(
        'The checkpoint has no confidence head: scores mean nothing until it is '
        'trained.',
        logger='current',
        level=logging.WARNING,
    )


def refuse_broken_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no real, finite numbers.

    Args:
        weights (Mapping[str, Tensor]): Weights that a model has as real numbers.

    Raises:
        ValueError: One is of integers or complex, or has NaN or infinite values.
    """
    for name, value in weights.items():
        if not value.is_floating_point():
            raise ValueError(
                f'state_dict, {name!r}: expected real numbers, found {value.dtype}.'
            )
        if not value.isfinite().all():
            raise ValueError(
                f'state_dict, {name!r}: it has NaN or infinite values; the training '
                'run that wrote it had diverged.'
            )
