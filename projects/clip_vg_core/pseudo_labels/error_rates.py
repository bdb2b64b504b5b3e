"""How often simulated models are wrong."""

from dataclasses import dataclass

__all__ = ['ErrorRates']


@dataclass(frozen=True)
class ErrorRates:
    """Rates of errors of the simulated models.

    Args:
        missed (float): Objects without a detection. Defaults to 0.1.
        doubled (float): Objects with a second, similar box. Defaults to 0.1.
        misclassed (float): Objects of another class. Defaults to 0.08.
        shifted (float): Boxes that overlap their object by less than half. Defaults
            to 0.08.
        recolored (float): Objects with a wrong colour. Defaults to 0.08.
        relation (float): Wrong predicates. Defaults to 0.2.
        caption (float): Captions with a wrong colour or side. Defaults to 0.2.
    """

    missed: float = 0.1
    doubled: float = 0.1
    misclassed: float = 0.08
    shifted: float = 0.08
    recolored: float = 0.08
    relation: float = 0.2
    caption: float = 0.2
