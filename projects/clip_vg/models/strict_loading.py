"""Weights of another model are refused; MMEngine's loader would only warn."""

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ['refuse_other_weights']


def refuse_other_weights(
    state: Mapping[str, Tensor], prefix: str, model: nn.Module
) -> None:
    """Compare names and shapes of a checkpoint's weights with a model's.

    Args:
        state (Mapping[str, Tensor]): The checkpoint's.
        prefix (str): Of the model's entries in it.
        model (nn.Module): That they are for.

    Raises:
        ValueError: One is missing, unexpected or of another shape.
    """
    given = {
        name.removeprefix(prefix): tuple(value.shape)
        for name, value in state.items()
        if name.startswith(prefix)
    }
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
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
