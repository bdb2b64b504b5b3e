"""Who wears what."""

from collections.abc import Mapping, Sequence

from .detection import Detection, intersection
from .vocabulary import CLOTHES

__all__ = ['dress', 'is_worn']


def is_worn(
    slot: str, cloth: Detection, person: Detection, min_inside: float = 0.75
) -> bool:
    """Whether a person wears a piece of clothing.

    Args:
        slot (str): 'hat', 'shirt', 'pants' or 'shoes'.
        cloth (Detection): The piece.
        person (Detection): The person.
        min_inside (float): More than this share of the cloth must be inside the
            person; also, a hat's centre must be higher than this share of the
            person's height, from below. Defaults to 0.75 (as released).

    Returns:
        bool: Yes if so; pants must have their centre in the person's lower half.
    """
    if intersection(cloth.box, person.box) <= min_inside * cloth.area:
        return False
    height = (person.box[3] - cloth.center[1]) / (person.box[3] - person.box[1])
    if slot == 'hat':
        return height > min_inside
    return height < 0.5 if slot == 'pants' else True


def dress(
    people: Sequence[Detection],
    clothes: Mapping[str, Sequence[Detection]],
    min_inside: float = 0.75,
) -> list[list[Detection]]:
    """What each person wears.

    Args:
        people (Sequence[Detection]): N people.
        clothes (Mapping[str, Sequence[Detection]]): Pieces of each slot.
        min_inside (float): As in :func:`is_worn`. Defaults to 0.75.

    Returns:
        list[list[Detection]]: N lists, the most confident piece of each slot.
    """
    worn: list[list[Detection]] = []
    for person in people:
        mine = []
        for slot in CLOTHES:
            fitting = [
                item
                for item in clothes.get(slot, ())
                if is_worn(slot, item, person, min_inside)
            ]
            if fitting:
                mine.append(max(fitting, key=lambda item: item.score))
        worn.append(mine)
    return worn
