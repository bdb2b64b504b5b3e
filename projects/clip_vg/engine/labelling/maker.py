"""One image in, lines of labels out: what each process of a run does."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from projects.clip_vg_core.pseudo_labels.attributes import copy_attributes
from projects.clip_vg_core.pseudo_labels.caption import CaptionOptions, caption_labels
from projects.clip_vg_core.pseudo_labels.detection import Detection, PseudoLabel, Scene
from projects.clip_vg_core.pseudo_labels.geometry import (
    GeometryOptions,
    geometry_labels,
)
from projects.clip_vg_core.pseudo_labels.relation import (
    RelationOptions,
    relation_labels,
)
from projects.clip_vg_core.pseudo_labels.store import SceneStore
from projects.clip_vg_core.pseudo_labels.template import (
    Describe,
    TemplateOptions,
    template_labels,
)
from projects.clip_vg_core.pseudo_labels.vocabulary import Vocabulary

__all__ = ['KINDS', 'LabelMaker', 'MakerSettings']

Options = TemplateOptions | RelationOptions | CaptionOptions | GeometryOptions
KINDS: Mapping[str, type[Options]] = dict(
    template=TemplateOptions,
    relation=RelationOptions,
    caption=CaptionOptions,
    geometry=GeometryOptions,
)


# What a source is made of.
_READ = dict(
    template=('detections',),
    relation=('triplets',),
    caption=('detections', 'captions'),
    geometry=('detections',),
)


@dataclass(frozen=True)
class MakerSettings:
    """What a process needs to know to make labels.

    Args:
        kind (str): A key of ``KINDS``.
        options (Options): Its constants.
        source (str): Written into each label.
        split (str): Written into each label. Defaults to 'train'.
        vocabulary (Mapping[str, str]): Files of :meth:`Vocabulary.load`, where not
            the package's. Defaults to none.
        parser (str): spaCy model, for captions. Defaults to 'en_core_web_sm'.
        clip (Mapping, optional): Arguments of :class:`ClipAttributes` but for its
            words. Defaults to None: attributes are those of the detections.
        use_attributes (bool): Whether attributes are used at all. Defaults to True.
    """

    kind: str
    options: Options
    source: str
    split: str = 'train'
    vocabulary: Mapping[str, str] = field(default_factory=dict)
    parser: str = 'en_core_web_sm'
    clip: Mapping[str, Any] | None = None
    use_attributes: bool = True


class LabelMaker:
    """Makes the labels of images; see :class:`MakerSettings`."""

    def __init__(self, settings: MakerSettings) -> None:
        self.settings = settings
        self.vocabulary = Vocabulary.load(**settings.vocabulary)
        self.describe: Describe | None = None
        if settings.clip is not None:
            from .clip_attributes import ClipAttributes

            self.describe = ClipAttributes(
                words=self.vocabulary.attributes, **settings.clip
            )
        if settings.kind == 'caption':
            from projects.clip_vg_core.pseudo_labels.parsing import load_parser

            self.parse = load_parser(settings.parser)

    def labels(
        self, scene: Scene, described: Sequence[Detection], counts: Counter
    ) -> list[PseudoLabel]:
        """The labels of an image; ``counts`` gets what each rule left out."""
        options: Any = self.settings.options
        detections = scene.detections
        if not self.settings.use_attributes:
            detections = tuple(replace(d, attribute=None) for d in detections)
        elif described:
            limits = options.attribute_iou, options.min_attribute_score
            found = copy_attributes(detections, described, self.vocabulary, *limits)
            detections = tuple(found)
        if detections is not scene.detections:
            scene = replace(scene, detections=detections)
        make: dict[str, Callable[[], list[PseudoLabel]]] = dict(
            template=lambda: template_labels(
                scene, self.vocabulary, options, self.describe, counts
            ),
            geometry=lambda: geometry_labels(
                scene, self.vocabulary, options, self.describe, counts
            ),
            relation=lambda: relation_labels(scene, self.vocabulary, options, counts),
            caption=lambda: caption_labels(
                scene, self.vocabulary, self.parse, options, counts
            ),
        )
        return make[self.settings.kind]()

    def __call__(self, store: SceneStore, ranks: range) -> tuple[bytes, Counter]:
        """The labels of a stretch of images.

        Args:
            store (SceneStore): The inputs.
            ranks (range): Which images.

        Returns:
            tuple[bytes, Counter]: ODVG JSON Lines; and what was counted: 'images',
            'labels', 'label: <kind of word>', 'left out: <reason>'.
        """
        lines: list[str] = []
        counts: Counter = Counter()
        for scene, described in store.scenes(ranks):
            dropped: Counter = Counter()
            labels = self.labels(scene, described, dropped)
            lines += self._lines(scene, labels)
            counts['images'] += 1
            for what in _READ[self.settings.kind]:
                counts[f'images without {what}'] += not getattr(scene, what)
            counts['images with labels'] += bool(labels)
            counts['detections'] += len(scene.detections)
            counts['captions'] += len(scene.captions)
            counts['triplets'] += len(scene.triplets)
            counts['labels'] += len(labels)
            counts.update(f'label: {w}' for label in labels for w in label.words)
            counts.update({f'left out: {k}': n for k, n in dropped.items()})
        return ''.join(lines).encode(), counts

    def _lines(self, scene: Scene, labels: Sequence[PseudoLabel]) -> list[str]:
        settings = self.settings
        lines = []
        for number, label in enumerate(labels):
            region = dict(
                bbox=[round(edge, 2) for edge in label.box],
                phrase=label.text,
                tokens_positive=[[0, len(label.text)]],
            )
            line = dict(
                filename=scene.file_name,
                height=scene.height,
                width=scene.width,
                grounding=dict(caption=label.text, regions=[region]),
                sample_id=f'{settings.source}_{scene.image_id}_{number}',
                split=settings.split,
                source=settings.source,
                rule=label.rule,
                entities=label.entities,
                score=round(label.score, 4),
            )
            lines.append(json.dumps(line, ensure_ascii=False) + '\n')
        return lines
