"""Weights of another model, and broken ones, are refused; MMEngine would only warn."""

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ['refuse_broken_weights', 'refuse_other_weights']


def refuse_other_weights(
    state: Mapping[str, Tensor], prefix: str, model: nn.Module
) -> None:
    """Compare names and shapes of a checkpoint's weights with a model's.

    Args:
        state (Mapping[str, Tensor]): The checkpoint's.
        prefix (str): Of the model's entries in it.
        model (nn.Module): That they are for.

    Raises:
        ValueError: One is missing, unexpected, of another shape or broken.
    """
    if not all(isinstance(value, Tensor) for value in state.values()):
        keys = [str(key)[:40] for key in list(state)[:8]]
        raise ValueError(
            f'The checkpoint has no weights under "state_dict"; its keys are {keys}.'
        )
    given = {
        name.removeprefix(prefix): tuple(value.shape)
        for name, value in state.items()
        if name.startswith(prefix)
    }
    weights = model.state_dict()
    own = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = {
        'missing': sorted(own.keys() - given.keys()),
        'unexpected': sorted(given.keys() - own.keys()),
        'of another shape': [
            f'{name} {given[name]} instead of {own[name]}'
            for name in own.keys() & given.keys()
            if given[name] != own[name]
        ],
    }
    found = [f'{len(v)} {k}, e.g. {v[:2]}' for k, v in wrong.items() if v]
    if found:
        raise ValueError(
            f'The checkpoint is not of this model: {"; ".join(found)}. Build the '
            'model with the config that the checkpoint was trained with (it is in '
            "its meta['cfg'])."
        )
    refuse_broken_weights(
        {
            name: value
            for name, value in state.items()
            if name.startswith(prefix)
            and weights[name.removeprefix(prefix)].is_floating_point()
        }
    )


def refuse_broken_weights(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no real, finite numbers.

    Args:
        state (Mapping[str, Tensor]): Weights that a model has as real numbers.

    Raises:
        ValueError: One is of integers or complex, or has NaN or infinite values.
    """
    for name, value in state.items():
        if not value.is_floating_point():
            raise ValueError(
                f'state_dict, {name!r}: expected real numbers, found {value.dtype}.'
            )
        if not value.isfinite().all():
            raise ValueError(
                f'state_dict, {name!r}: it has NaN or infinite values; the training '
                'that wrote it was broken.'
            )
