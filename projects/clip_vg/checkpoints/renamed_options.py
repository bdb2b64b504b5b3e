"""Options of configs that had another name before: one table, and what applies it.

Configs inside checkpoints are brought to the new names when they are read. In a config
file, the old names are accepted by the registered class, with a warning.
"""

import logging
from collections.abc import Callable, Mapping, MutableMapping
from functools import wraps
from typing import Any

from mmengine.logging import print_log

__all__ = ['RENAMED_OPTIONS', 'accept_old_names', 'rename_options']

# Of each registered type: old name, new name.
RENAMED_OPTIONS: Mapping[str, Mapping[str, str]] = {
    'GroundingConfidenceHead': {'absent': 'neg_ratio', 'alone': 'freeze_detector'},
}


def rename_options(value: Any) -> None:
    """Give the options of a config their names of today, in place.

    Args:
        value (Any): A config, or a part of it, of plain values.

    Raises:
        ValueError: An option stands there under both of its names.
    """
    if isinstance(value, MutableMapping):
        kind = str(value.get('type'))
        for old, new in RENAMED_OPTIONS.get(kind, {}).items():
            if old in value:
                _refuse_both(value, kind, old, new)
                value[new] = value.pop(old)
        for item in value.values():
            rename_options(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            rename_options(item)


def accept_old_names(cls: Any) -> Any:
    """Let a class be built with the old names of its options, with a warning."""
    build: Callable[..., None] = cls.__init__
    renamed = RENAMED_OPTIONS[cls.__name__]

    @wraps(build)
    def init(self: Any, *args: Any, **options: Any) -> None:
        for old, new in renamed.items():
            if old in options:
                _refuse_both(options, cls.__name__, old, new)
                print_log(
                    f'{cls.__name__}: the option {old!r} is called {new!r} now; write '
                    f'{new}={options[old]!r}.',
                    logger='current',
                    level=logging.WARNING,
                )
                options[new] = options.pop(old)
        build(self, *args, **options)

    cls.__init__ = init
    return cls


def _refuse_both(options: Mapping, kind: str, old: str, new: str) -> None:
    if new in options:
        raise ValueError(
            f'{kind} has {old}={options[old]!r} and {new}={options[new]!r}, which are '
            f'one option: leave {old} out.'
        )
