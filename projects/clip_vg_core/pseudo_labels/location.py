"""Where an object is among others of its class: the words for it."""

from collections.abc import Sequence

from .detection import Detection

__all__ = ['locations']


def locations(
    detections: Sequence[Detection],
    width: int,
    height: int,
    min_spread: float = 50 / 640,
    min_spread_pixels: float | None = None,
    behind: float = 0.4,
    front: float = 0.8,
) -> list[list[str]]:
    """Words of place for each object of one class.

    Only along x is there a middle, as in the official code: the middle of a column is
    often the left or right extreme. The official code divides the height's quarters by
    the width; that is mended here.

    Args:
        detections (Sequence[Detection]): N objects of one class.
        width (int): Of the image, in pixels.
        height (int): Of the image, in pixels.
        min_spread (float): How far the centres must be apart before left and right,
            top and bottom mean something, as a share of the long side. Defaults to
            50 / 640: the release's 50 pixels, which were meant for 640.
        min_spread_pixels (float, optional): The same in pixels, instead. Defaults to
            None.
        behind (float): An area below this share of the largest is behind. Defaults
            to 0.4 (as released).
        front (float): An area above this share of the largest is in front, where
            there are more than three. Defaults to 0.8 (as released).

    Returns:
        list[list[str]]: N lists of 'left', 'right', 'top', 'bottom', 'middle',
        'center', 'front', 'behind'; empty for a single object.
    """
    if len(detections) < 2:
        return [[] for _ in detections]
    spread = min_spread * max(width, height)
    if min_spread_pixels is not None:
        spread = min_spread_pixels
    words: list[dict[str, None]] = [{} for _ in detections]
    across, down = zip(*(item.center for item in detections), strict=True)
    _along(across, width, spread, ('left', 'right'), ('middle', 'center'), words)
    _along(down, height, spread, ('top', 'bottom'), (), words)
    _depth([item.area for item in detections], behind, front, words)
    return [list(found) for found in words]


def _along(
    centers: Sequence[float],
    side: int,
    spread: float,
    names: tuple[str, str],
    inner: Sequence[str],
    words: list[dict[str, None]],
) -> None:
    """Add the words of one axis: extremes, the third of three, or quarters.

    What is between the extremes is ``inner``, if that has words.
    """
    if max(centers) - min(centers) <= spread:
        return
    first = min(range(len(centers)), key=centers.__getitem__)
    last = max(range(len(centers)), key=centers.__getitem__)
    words[first][names[0]] = None
    words[last][names[1]] = None
    others = [i for i in range(len(centers)) if i not in (first, last)]
    third = len(centers) == 3 and bool(inner)
    for index in others:
        if not third and centers[index] < side / 4:
            words[index][names[0]] = None
        elif not third and centers[index] > 3 * side / 4:
            words[index][names[1]] = None
        else:
            words[index].update(dict.fromkeys(inner))


def _depth(
    areas: Sequence[float], behind: float, front: float, words: list[dict[str, None]]
) -> None:
    """Add 'behind' and 'front', by size."""
    largest = max(range(len(areas)), key=areas.__getitem__)
    smallest = min(range(len(areas)), key=areas.__getitem__)
    if areas[smallest] >= behind * areas[largest]:
        return
    words[smallest]['behind'] = None
    words[largest]['front'] = None
    if len(areas) > 3:
        for index, area in enumerate(areas):
            if area < behind * areas[largest]:
                words[index]['behind'] = None
            elif area > front * areas[largest]:
                words[index]['front'] = None
