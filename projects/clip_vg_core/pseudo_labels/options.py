"""What all generators' constants have in common: they must make sense."""

import math
from dataclasses import fields

__all__ = ['CheckedOptions']

_MAY_BE_ZERO = ('seed', 'captions_per_image')
_MAY_PASS_ONE = ('min_spread_pixels',)


class CheckedOptions:
    """A dataclass of constants: counts from 1, and shares and scores in [0, 1]."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None or isinstance(value, bool):
                continue
            if isinstance(value, int) and not isinstance(field.default, float):
                least, most = int(field.name not in _MAY_BE_ZERO), math.inf
            else:
                least, most = 0, math.inf if field.name in _MAY_PASS_ONE else 1
            if not least <= value <= most:  # nor is nan
                raise ValueError(
                    f'{field.name}={value}: expected a number of at least {least}'
                    + (f' and at most {most}.' if most < math.inf else '.')
                )
