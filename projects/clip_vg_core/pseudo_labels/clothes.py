"""Who wears what."""

from collections.abc import Mapping, Sequence

from .detection import Detection, intersection
from .vocabulary import CLOTHES

__all__ = ['dress', 'is_worn']


def is_worn(
    slot: str,
    cloth: Detection,
    person: Detection,
    min_inside: float = 0.75,
    hat_above: float = 0.75,
    pants_below: float = 0.5,
) -> bool:
    """Whether a person wears a piece of clothing.

    Args:
        slot (str): 'hat', 'shirt', 'pants' or 'shoes'.
        cloth (Detection): The piece.
        person (Detection): The person.
        min_inside (float): More than this share of the cloth must be inside the
            person. Defaults to 0.75 (as released).
        hat_above (float): A hat's centre must be higher than this share of the
            person's height, from below. Defaults to 0.75 (as released).
        pants_below (float): The centre of pants must be lower than this. Defaults to
            0.5 (as released).

    Returns:
        bool: Yes if so.
    """
    if intersection(cloth.box, person.box) <= min_inside * cloth.area:
        return False
    height = (person.box[3] - cloth.center[1]) / (person.box[3] - person.box[1])
    if slot == 'hat':
        return height > hat_above
    return height < pants_below if slot == 'pants' else True


def dress(
    people: Sequence[Detection],
    clothes: Mapping[str, Sequence[Detection]],
    *limits: float,
) -> list[list[Detection]]:
    """What each person wears.

    Args:
        people (Sequence[Detection]): N people.
        clothes (Mapping[str, Sequence[Detection]]): Pieces of each slot.
        limits (float): As in :func:`is_worn`, in its order.

    Returns:
        list[list[Detection]]: N lists of pieces, slot by slot, the surest first.
    """
    return [
        [
            item
            for slot in CLOTHES
            for item in sorted(clothes.get(slot, ()), key=lambda item: -item.score)
            if is_worn(slot, item, person, *limits)
        ]
        for person in people
    ]
