"""Types in configs that come from elsewhere."""

from collections.abc import Mapping
from typing import Any

__all__ = ['check_types']


def check_types(value: Any, source: str, way_out: str) -> None:
    """Refuse types that are no plain names: of a dotted one, the import would be run.

    Args:
        value (Any): A config, or a part of one.
        source (str): What to call it in an error.
        way_out (str): What the error says to do.

    Raises:
        ValueError: A ``type`` is not a plain name of a registry.
    """
    if isinstance(value, Mapping):
        kind = value.get('type')
        if kind is not None and not (isinstance(kind, str) and kind.isidentifier()):
            raise ValueError(
                f'{source}: its config has the type {kind!r}, which is no name of a '
                f'registry. {way_out}'
            )
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            check_types(item, source, way_out)
