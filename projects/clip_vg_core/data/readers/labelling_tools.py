"""Exports of labelling tools: Label Studio, CVAT, and COCO with a text at each box."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..box_formats import BoxKind
from ..table_builder import shown
from .common import by_id, entry_of, image_size, required, split_of
from .documents import Document
from .layout import PIXEL_XYWH, PIXEL_XYXY, Label, Layout, Options, refuse
from .rows import FIELDS

__all__ = ['COCO_TEXTS', 'CVAT', 'LABEL_STUDIO', 'LABEL_STUDIO_MIN']

TEXT_NAMES = (*FIELDS['text'], 'captions')


def _labels_of(
    place: int,
    image: Any,
    pairs: Iterable[tuple[Any, list]],
    stem: str,
    split: str,
    size: tuple[int, int] | None,
) -> Iterator[Label]:
    """Labels of one image; boxes with the same expression are targets of one label.

    Args:
        place (int): Of the image's entry, for errors.
        image (Any): File name of the image.
        pairs (Iterable): Of an expression or a list of them, and a box.
        stem (str): That names begin with.
        split (str): The split.
        size (tuple, optional): Height and width of the image.
    """
    boxes: dict[Any, list] = {}
    for texts, box in pairs:
        for text in texts if isinstance(texts, list) else [texts]:
            boxes.setdefault(text, []).append(box)
    for index, (text, targets) in enumerate(boxes.items()):
        yield Label(place, image, targets, text, f'{stem}_{index}', split, size=size)


def _text_of(values: Mapping[str, Any], options: Options, where: str) -> Any:
    """The expression among named values of a box.

    Returns:
        str or list[str]: One, or several for the same box.

    Raises:
        ValueError: There is none, or several can be it; it says which names there are.
    """
    wanted = options.fields.get('text')
    names = [n for n in ((wanted,) if wanted else TEXT_NAMES) if values.get(n)]
    if len(names) != 1:
        raise ValueError(
            f'{where}: expected one text, an expression, found '
            f'{shown({n: values[n] for n in names} if names else sorted(values))}: '
            f'call it {TEXT_NAMES[1]!r}, say fields=dict(text=NAME) (--fields '
            'text=NAME), or remove the box.'
        )
    found = values[names[0]]
    for text in found if isinstance(found, list) else [found]:
        entry_of(text, str, f'{where}, {names[0]}', 'a text')
    return found


# --- COCO --------------------------------------------------------------------------


def _texts_of_annotation(annotation: Any) -> dict[str, Any]:
    """Values of an annotation, those in CVAT's ``attributes`` included."""
    if not isinstance(annotation, dict) or 'bbox' not in annotation:
        return {}
    attributes = annotation.get('attributes')
    return {**(attributes if isinstance(attributes, dict) else {}), **annotation}


def _is_coco_texts(document: Document) -> bool:
    if document.kind != 'json' or not isinstance(document.value, dict):
        return False
    annotations = document.value.get('annotations')
    if not isinstance(annotations, list) or 'images' not in document.value:
        return False
    return any(
        name in _texts_of_annotation(annotation)
        for annotation in annotations[:50]
        for name in TEXT_NAMES
    )


def _coco_labels(document: Document, options: Options) -> Iterator[Label]:
    path = document.path
    images, annotations = (
        entry_of(required(document.value, key, str(path)), list, f'{path}, {key}', what)
        for key, what in (('images', 'a list'), ('annotations', 'a list'))
    )
    of_image: dict[Any, list] = {}
    for index, annotation in enumerate(annotations):
        where = f'{path}, annotation {index}'
        number = required(annotation, 'image_id', where)
        entry_of(number, (int, str), f'{where}, image_id', 'a number or text')
        box = required(annotation, 'bbox', where)
        text = _text_of(_texts_of_annotation(annotation), options, where)
        of_image.setdefault(number, []).append((text, box))
    entries = by_id(images, f'{path}, image')
    unknown = [number for number in of_image if number not in entries]
    if unknown:
        raise ValueError(
            f'{path}: annotations are of the image_id {shown(unknown[0])}, which none '
            f'of the {len(entries):,} images has.'
        )
    split = split_of(path.stem)
    for place, (number, image) in enumerate(entries.items()):
        yield from _labels_of(
            place,
            required(image, 'file_name', f'{path}, image {shown(number)}'),
            of_image.get(number, []),
            f'{path.stem}_{number}',
            split,
            image_size(image),
        )


COCO_TEXTS = Layout(
    'coco_texts',
    'COCO with an expression at each annotation, or in its `attributes` as CVAT '
    'exports them',
    _is_coco_texts,
    _coco_labels,
    PIXEL_XYWH,
    pitfalls='the key is one of caption, expression, text, phrase, ...; annotations '
    'of an image with the same expression are its targets',
    takes_fields=True,
)


# --- CVAT --------------------------------------------------------------------------


def _is_cvat(document: Document) -> bool:
    if document.kind != 'xml' or not document.head:
        return False
    return document.head[0][1].tag == 'annotations'


def _cvat_labels(document: Document, options: Options) -> Iterator[Label]:
    """Boxes of images; the expression is an attribute of the box."""
    for place, (path, root) in document.rows():
        images = root.findall('image')
        if not images and root.find('track') is not None:
            raise ValueError(
                f'{path} has tracks of a video; expected images: export the task as '
                '"CVAT for images 1.1".'
            )
        for image in images:
            name = image.get('name')
            where = f'{path}, image {shown(name)}'
            sides = {key: _whole(image.get(key)) for key in ('height', 'width')}
            pairs = []
            for index, box in enumerate(image.findall('box')):
                at = f'{where}, box {index}'
                _check_upright(_float(box.get('rotation', '0'), at), at)
                corners = [
                    _float(box.get(key), f'{at}, {key}')
                    for key in ('xtl', 'ytl', 'xbr', 'ybr')
                ]
                values = {
                    str(entry.get('name')): (entry.text or '').strip()
                    for entry in box.findall('attribute')
                }
                pairs.append((_text_of(values, options, at), corners))
            yield from _labels_of(
                place,
                name,
                pairs,
                f'{path.stem}_{image.get("id", name)}',
                image.get('subset') or split_of(path.stem),
                image_size(sides),
            )


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _float(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'{where}: expected a number, found {shown(value)}.') from None


def _check_upright(degrees: float, where: str) -> None:
    if degrees % 360:
        raise ValueError(
            f'{where}: the box is rotated by {degrees:g} degrees; expected boxes along '
            'the borders of the image: set the rotation to 0 in the labelling tool.'
        )


CVAT = Layout(
    'cvat',
    'CVAT for images 1.1 (`annotations.xml`)',
    _is_cvat,
    _cvat_labels,
    PIXEL_XYXY,
    pitfalls='the expression is a text attribute of the box, such as `expression`, or '
    'say `fields=dict(text=NAME)`',
    takes_fields=True,
)


# --- Label Studio ------------------------------------------------------------------


def _is_label_studio(document: Document) -> bool:
    return {'data', 'annotations'} <= document.keys


def _studio_labels(document: Document, options: Options) -> Iterator[Label]:
    """Regions of tasks; each has a rectangle and a text of the same ``id``.

    Annotations that were cancelled, and predictions, are passed over.
    """
    stem, split = document.path.stem, split_of(document.path.stem)
    known: dict[str, str] = {}
    for number, task in document.rows():
        where = f'{document.path}, task {number}'
        entry_of(task, dict, where, 'a dict')
        image = _studio_image(required(task, 'data', where), where, known)
        annotations = entry_of(
            required(task, 'annotations', where),
            list,
            f'{where}, annotations',
            'a list',
        )
        for index, annotation in enumerate(annotations):
            at = f'{where}, annotation {index}'
            if entry_of(annotation, dict, at, 'a dict').get('was_cancelled'):
                continue
            results = required(annotation, 'result', at)
            entry_of(results, list, f'{at}, result', 'a list')
            regions, size = _regions(results, at)
            pairs = [
                (
                    _text_of(_renamed(texts), options, f'{at}, region {shown(region)}'),
                    box,
                )
                for region, (box, texts) in regions.items()
            ]
            yield from _labels_of(
                number, image, pairs, f'{stem}_{task.get("id", number)}_{index}', split,
                size,
            )  # fmt: skip


def _renamed(texts: Mapping[str, list]) -> dict[str, list]:
    """Texts by the names of their fields; the only one is the expression."""
    return {TEXT_NAMES[1]: [*texts.values()][0]} if len(texts) == 1 else dict(texts)


def _regions(
    results: list, where: str
) -> tuple[dict[str, tuple[list, dict]], tuple[int, int] | None]:
    """Boxes (xywh in percent) and texts of regions, and the size of the image.

    Returns:
        tuple: Of each region with a rectangle, its box and its texts by the name of the
        field; (height, width) of the image.
    """
    boxes: dict[str, list] = {}
    texts: dict[str, dict] = {}
    size = None
    for index, result in enumerate(results):
        at = f'{where}, result {index}'
        kind = required(result, 'type', at)
        if kind not in ('rectangle', 'rectanglelabels', 'textarea'):
            continue
        value = entry_of(required(result, 'value', at), dict, f'{at}, value', 'a dict')
        region = str(result.get('id'))
        if kind == 'textarea':
            words = value.get('text')
            texts.setdefault(region, {})[str(result.get('from_name'))] = (
                words if isinstance(words, list) else [words]
            )
            continue
        for turned in (value.get('rotation'), result.get('image_rotation')):
            _check_upright(_float(turned or 0, at), at)
        boxes[region] = [required(value, k, at) for k in ('x', 'y', 'width', 'height')]
        sides = {key: result.get(f'original_{key}') for key in ('height', 'width')}
        size = image_size(sides) or size
    return {r: (box, texts.get(r, {})) for r, box in boxes.items()}, size


def _studio_image(data: Any, where: str, known: dict[str, str]) -> str:
    """The name of a task's image, without folders and what Label Studio adds.

    Args:
        data (Any): The task's ``data``.
        where (str): For errors.
        known (dict[str, str]): Names and what they were made of, added to.
    """
    entry_of(data, dict, f'{where}, data', 'a dict')
    keys = [k for k in (*FIELDS['image'], *data) if isinstance(data.get(k), str)]
    if not keys:
        raise ValueError(
            f'{where}: no image in "data", which has {shown(sorted(data))}; expected '
            f'a text called {FIELDS["image"][0]!r}.'
        )
    address = data[keys[0]]
    try:
        parts = urlsplit(address)
        # Local storage has /data/local-files/?d=folder/name.jpg.
        path = parse_qs(parts.query).get('d', [unquote(parts.path)])[0]
    except ValueError as error:
        raise ValueError(
            f'{where}: {shown(address)} is no address of an image: {error}.'
        ) from error
    name = path.replace('\\', '/').rpartition('/')[2]
    other = known.setdefault(name, address)
    if other != address:
        raise ValueError(
            f'{where}: {address[:200]!r} and {other[:200]!r} would be one image, as '
            'folders do not count: give the images names of their own.'
        )
    return name


LABEL_STUDIO = Layout(
    'label_studio',
    'Label Studio JSON export: rectangles with a text for each region',
    _is_label_studio,
    _studio_labels,
    (BoxKind('xywh', '100'),),
    pitfalls='boxes are in percent; images by their names without folders, uploaded '
    'ones also without the eight digits that Label Studio puts before them',
    takes_fields=True,
)
LABEL_STUDIO_MIN = Layout(
    'label_studio_min',
    'Label Studio JSON-MIN export',
    lambda document: {'annotation_id', 'annotator'} <= document.keys,
    refuse(
        'JSON-MIN of Label Studio does not say which text is of which box: export as '
        'JSON'
    ),
    PIXEL_XYWH,
    refusal='does not say which text is of which box',
)
