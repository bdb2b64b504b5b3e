"""Chat files: conversations of vision-language models that name a box.

The expression is what the question or the reply marks as such, never the question
itself; where nothing marks it, the user says the question's form (``instruction``).
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..box_formats import BoxKind
from ..table_builder import shown
from .common import entry_of, image_size, required, split_of, targets_of
from .documents import Document
from .layout import PIXEL_XYXY, Label, Layout, Options, labels_of_row

__all__ = ['CHAT', 'FLORENCE', 'MS_SWIFT', 'VLM', 'expression_of']

_NUMBER = r'\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*'
_FOUR = re.compile(r'\[' + ','.join([_NUMBER] * 4) + r'\]')
_PAIRS = re.compile(r'\(%s,%s\)\s*,?\s*\(%s,%s\)' % ((_NUMBER,) * 4))
# Qwen-VL and InternVL: what is marked, and its box or boxes.
_MARKED = re.compile(
    r'<(?:ref|\|object_ref_start\|)>([^<]*)<(?:/ref|\|object_ref_end\|)>'
    r'((?:\s*<(?:box|\|box_start\|)>[^<]*<(?:/box|\|box_end\|)>)*)'
)
_IMAGE_TAG = re.compile(r'<img>([^<]*)</img>')
# Marks that stand for an image, and what model families put around a question.
_TAGS = re.compile(r'<image>|<img>[^<]*</img>|<\|[a-z_]+\|>|Picture \d+:')
# Questions whose expression is known to follow or to be within.
_QUESTIONS = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        # LLaVA and VLM-R1: "... the region this sentence describes: X."
        r'\b(?:sentence|phrase|expression|text|description)s?\s+'
        r'(?:describes?|refers?\s+to|is|below)\s*:(?P<x>.+)',
        r'\b(?:sentence|phrase|expression|description|query)\s*(?:is)?\s*:(?P<x>.+)',
        # Whatever is put in quotes; an apostrophe is none.
        r'(?<!\w)[\'"“‘](?P<x>[^\'"”’]+)[\'"”’](?!\w)',
    )
)
# Words that a question has and an expression has not.
_ASKS = re.compile(
    r'\b(?:please|bounding\s+box|coordinates?|bbox|output|locate|detect|segment|'
    r'provide|answer|return|grounding)\b|<image>|<img>|\?\s*$',
    re.IGNORECASE,
)
_MOST_TEXT = 1 << 16  # characters of a turn; matching is bounded by it


def expression_of(question: Any, instruction: str | None, where: str) -> str:
    """The expression within a question.

    Args:
        question (str): E.g. 'Please provide the bounding box coordinate of the region
            this sentence describes: left man.'
        instruction (str, optional): The form of all questions, with ``{expression}``.
        where (str): File and row, for errors.

    Raises:
        ValueError: The question does not mark its expression.
    """
    entry_of(question, str, f'{where}, the question', 'a text')
    text = _TAGS.sub(' ', question[:_MOST_TEXT]).strip()
    if instruction is not None:
        begin, middle, end = instruction.partition('{expression}')
        if not middle:
            raise ValueError(
                f'instruction={instruction!r}: expected a question with {{expression}} '
                'in it.'
            )
        begin, end = begin.strip(), end.strip()
        if (
            text.startswith(begin)
            and text.endswith(end)
            and len(text) > len(begin) + len(end)
        ):
            return text[len(begin) : len(text) - len(end)].strip()
        raise ValueError(
            f'{where}: the question {text[:200]!r} is not of the form {instruction!r}.'
        )
    for pattern in _QUESTIONS:
        if match := pattern.search(text):
            return match['x'].strip(' .\n\t')
    if _ASKS.search(question) or not text:
        raise ValueError(
            f'{where}: which part of the question {text[:200]!r} is the expression is '
            "not known: say the form of the questions, instruction='... {expression}' "
            '(--instruction).'
        )
    return text


def _vlm_text(row: dict, instruction: str | None, where: str) -> Any:
    if 'normal_caption' in row:
        return row['normal_caption']
    problem = required(row, 'problem', where)
    return (
        expression_of(problem, instruction, where)
        if isinstance(problem, str)
        else problem
    )


def _vlm_labels(document: Document, options: Options) -> Iterator[Label]:
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        yield from labels_of_row(
            number,
            row,
            required(row, 'image', where),
            _vlm_text(row, options.instruction, where),
            targets_of(required(row, 'solution', where)),
            stem,
            split=split,
            image_set=str(row.get('dataset') or ''),
        )


class Reply(NamedTuple):
    """Boxes of an reply.

    Args:
        text (str, optional): The expression, where the reply says it.
        boxes (list): Of 4 numbers.
        kind (str): How they are written: 'marked', 'bbox_2d' or 'plain'.
    """

    text: str | None
    boxes: list
    kind: str


def _four(pattern: re.Pattern, text: str) -> list:
    return [[float(v) for v in match] for match in pattern.findall(text)]


def _replies(text: str) -> list[Reply]:
    """Boxes of a reply, with their expressions; an empty list without boxes."""
    text = text[:_MOST_TEXT]
    marked = []
    for name, boxes in _MARKED.findall(text):
        numbers = _four(_PAIRS, boxes) + _four(_FOUR, boxes)
        if numbers:
            marked.append(Reply(name.strip(), numbers, 'marked'))
    if marked:
        return marked
    if 'bbox_2d' in text:
        return _json_replies(text)
    if '<box>' in text or '<|box_start|>' in text:
        boxes = _four(_PAIRS, text) + _four(_FOUR, text)
        return [Reply(None, boxes, 'marked')] if boxes else []
    boxes = _four(_FOUR, text)
    return [Reply(None, boxes, 'plain')] if boxes else []


def _json_replies(text: str) -> list[Reply]:
    """Qwen2.5-VL's list of ``{"bbox_2d": [...], "label": "..."}``."""
    begin = min((i for i in (text.find('['), text.find('{')) if i >= 0), default=0)
    try:
        value, _ = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return []
    of_label: dict[str | None, list] = {}
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict) and 'bbox_2d' in entry:
            label = entry.get('label')
            label = label if isinstance(label, str) and label.strip() else None
            of_label.setdefault(label, []).append(entry['bbox_2d'])
    return [Reply(label, boxes, 'bbox_2d') for label, boxes in of_label.items()]


def _turns(row: dict, where: str) -> list[tuple[str, str]]:
    """(role, text) of the turns of a conversation."""
    key = 'conversations' if 'conversations' in row else 'messages'
    turns = []
    for index, turn in enumerate(
        entry_of(required(row, key, where), list, f'{where}, {key}', 'a list')
    ):
        at = f'{where}, turn {index}'
        role = turn.get('from', turn.get('role')) if isinstance(turn, dict) else None
        if role is None:
            raise ValueError(f'{at}: expected a dict with "from" or "role".')
        content = required(turn, 'value' if 'value' in turn else 'content', at)
        if isinstance(content, list):  # parts: {"type": "text", "text": ...}, images
            content = ' '.join(
                str(part.get('text') or '')
                for part in content
                if isinstance(part, dict)
            )
        turns.append((str(role), entry_of(content, str, at, 'a text')))
    return turns


def _image(row: dict, turns: list[tuple[str, str]], where: str) -> Any:
    """The one image of a conversation."""
    images: Any = row.get('images', row.get('image'))
    if images is None:
        images = [tag for _, text in turns for tag in _IMAGE_TAG.findall(text)]
        images = list(dict.fromkeys(images))
    if isinstance(images, list | tuple):
        if len(images) != 1:
            raise ValueError(
                f'{where}: expected one image, found {len(images)}: {shown(images)}.'
            )
        images = images[0]
    return images.get('path') if isinstance(images, dict) else images


def _chat_labels(document: Document, options: Options) -> Iterator[Label]:
    """One label for each question whose reply has a box.

    Turns without a box (captions, other questions) are no labels.
    """
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        turns = _turns(row, where)
        labels: list[tuple[str, list]] = []
        question = None
        for role, text in turns:
            if role in ('human', 'user'):
                question = text
            elif role in ('gpt', 'assistant'):
                for reply in _replies(text):
                    expression = reply.text
                    if expression is None:
                        expression = expression_of(question, options.instruction, where)
                    labels.append((expression, reply.boxes))
        if not labels:
            continue
        image = _image(row, turns, where)
        for index, (text, boxes) in enumerate(labels):
            name = f'{stem}_{number}_{index}' if len(labels) > 1 else f'{stem}_{number}'
            yield Label(number, image, boxes, text, name, split, size=image_size(row))


def _chat_boxes(document: Document) -> tuple[BoxKind, ...]:
    """How boxes are written tells their unit; of Qwen's JSON, the numbers must."""
    kinds: set[str] = set()
    largest = 0.0
    for _, row, where in document.records():
        for role, text in _turns(row, where):
            if role not in ('gpt', 'assistant'):
                continue
            for reply in _replies(text):
                kinds.add(reply.kind)
                if reply.kind == 'plain':
                    largest = max(largest, *(v for box in reply.boxes for v in box))
    if len(kinds) > 1:
        raise ValueError(
            f'{document.path}: boxes are written in several ways '
            f'({", ".join(sorted(kinds))}), whose units differ: say `box_unit` '
            '(--box-unit).'
        )
    if kinds == {'marked'}:
        return (BoxKind('xyxy', '1000'),)
    if kinds == {'bbox_2d'}:
        # Qwen2.5-VL and Qwen3-VL write the same with different numbers.
        return (BoxKind('xyxy', 'resized'), BoxKind('xyxy', '1000'))
    # LLaVA's are of the image padded to a square, VLM-R1's in pixels.
    return (BoxKind('xyxy', 'square'),) if largest <= 1 else PIXEL_XYXY


def _is_swift(document: Document) -> bool:
    return {'messages', 'objects'} <= document.keys


def _swift_labels(document: Document, options: Options) -> Iterator[Label]:
    """Labels of ``objects``: ``ref`` and ``bbox``, one to one or one to many."""
    stem, split = document.path.stem, split_of(document.path.stem)
    units = dict(real='pixel', norm1000='1000', norm1='1')
    for number, row, where in document.records():
        objects = entry_of(
            required(row, 'objects', where), dict, f'{where}, objects', 'a dict'
        )
        boxes = targets_of(required(objects, 'bbox', f'{where}, objects'))
        unit = units.get(str(objects.get('bbox_type') or 'real'))
        if unit is None:
            raise ValueError(
                f'{where}: bbox_type {shown(objects["bbox_type"])}; expected one of '
                f'{sorted(units)}.'
            )
        turns = _turns(row, where)
        refs = entry_of(objects.get('ref') or [], list, f'{where}, ref', 'a list')
        if not refs:
            question = next((t for r, t in turns if r in ('human', 'user')), None)
            refs = [expression_of(question, options.instruction, where)]
        if len(refs) == 1:
            labels = {shown(refs[0]): (refs[0], boxes)}
        elif len(refs) == len(boxes):
            labels = {}
            for ref, box in zip(refs, boxes, strict=True):
                labels.setdefault(str(ref), (ref, []))[1].append(box)
        else:
            raise ValueError(
                f'{where}: {len(refs)} ref and {len(boxes)} bbox; expected one ref, or '
                'as many as bbox.'
            )
        image = _image(row, turns, where)
        for index, (text, of_text) in enumerate(labels.values()):
            name = f'{stem}_{number}_{index}' if len(labels) > 1 else f'{stem}_{number}'
            yield Label(
                number, image, of_text, text, name, split, '', image_size(row), unit
            )


_LOCATIONS = re.compile(r'((?:<loc_?\d{1,4}>)+)')


def _florence_labels(document: Document, options: Options) -> Iterator[Label]:
    """Locations in a suffix: x first of Florence-2, y first of PaliGemma."""
    del options
    stem, split = document.path.stem, split_of(document.path.stem)
    for number, row, where in document.records():
        texts = (required(row, key, where) for key in ('prefix', 'suffix'))
        prefix, suffix = (
            entry_of(text, str, where, 'texts as prefix and suffix')[:_MOST_TEXT]
            for text in texts
        )
        y_first = '<loc_' not in suffix
        labels: dict[str, list] = {}
        parts = _LOCATIONS.split(suffix)  # words, locations, words, ...
        for index in range(1, len(parts), 2):
            # Florence-2 has the words first, PaliGemma the locations.
            words = parts[index + 1] if y_first else parts[index - 1]
            values = [int(number) for number in re.findall(r'\d+', parts[index])]
            if len(values) % 4:
                raise ValueError(
                    f'{where}: {len(values)} locations in {shown(suffix)}; expected '
                    'four for each box.'
                )
            text = words.strip(' ,;.') or _asked_for(prefix)
            for begin in range(0, len(values), 4):
                box = values[begin : begin + 4]
                if y_first:
                    box = [box[1], box[0], box[3], box[2]]
                labels.setdefault(text, []).append(box)
        if not labels:
            labels = {_asked_for(prefix): []}
        for index, (text, boxes) in enumerate(labels.items()):
            name = f'{stem}_{number}_{index}' if len(labels) > 1 else f'{stem}_{number}'
            unit = '1024' if y_first else '1000'
            yield Label(
                number,
                required(row, 'image', where),
                boxes,
                text,
                name,
                split,
                size=image_size(row),
                unit=unit,
            )


def _asked_for(prefix: str) -> str:
    """The expression of a prefix: behind Florence's task or PaliGemma's 'detect'."""
    text = re.sub(r'<[A-Z_]+>', ' ', prefix).strip()
    return re.sub(r'^(?:detect|segment)\s+', '', text).strip()


VLM = Layout(
    'vlm',
    'VLM-R1 and RefCOCOs lists: image, `normal_caption` or `problem`, `solution`',
    lambda document: (
        {'image', 'solution'} <= document.keys
        or (document.kind == 'json' and document.value == [])
    ),
    _vlm_labels,
    PIXEL_XYXY,
    since='0.1',
    pitfalls=(
        'without `normal_caption` the expression is taken out of the question in '
        '`problem`, or `instruction` must be said'
    ),
)
CHAT = Layout(
    'chat',
    'Conversations: LLaVA, VLM-R1 training, Qwen-VL, Qwen2.5-VL, Qwen3-VL, InternVL',
    lambda document: (
        bool({'conversations', 'messages'} & document.keys) and not _is_swift(document)
    ),
    _chat_labels,
    _chat_boxes,
    pitfalls=(
        "LLaVA's boxes are 0 to 1 of the image padded to a square; Qwen2.5-VL's are "
        "pixels of the resized image and Qwen3-VL's 0 to 1000: where the numbers do "
        'not tell, say `box_unit`'
    ),
)
MS_SWIFT = Layout(
    'ms_swift',
    'ms-swift: `messages` with `<ref-object>` and `<bbox>`, `objects`',
    _is_swift,
    _swift_labels,
    PIXEL_XYXY,
    pitfalls='`bbox_type` is real (pixels, the default), norm1000 or norm1',
)
FLORENCE = Layout(
    'florence',
    'Roboflow multimodal: `prefix` and `suffix` with Florence-2 or PaliGemma locations',
    lambda document: {'image', 'prefix', 'suffix'} <= document.keys,
    _florence_labels,
    PIXEL_XYXY,
    pitfalls="Florence's locations are of 1000 and x first, PaliGemma's of 1024 and y "
    'first',
)
