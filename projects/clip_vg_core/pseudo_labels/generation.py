"""From detections to a finished file of labels, a shard at a time in memory."""

import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from ..data.readers import odvg_line
from ..utils.atomic import file_sha256, replacing
from ..utils.folder_lock import lock_folder
from ..utils.resumable import resumable_map
from ..utils.shards import Shard, shard_range
from .assign import AssignOptions, Score, assign_labels
from .caption import PARSER, CaptionOptions, caption_labels, load_parser
from .cleaning import copy_attributes
from .detection import PseudoLabel, Scene
from .geometry import GeometryOptions, geometry_labels
from .inputs import InputFiles, WriteCaptions, read_scenes
from .joining import join_captions, join_detections
from .predictions import list_images
from .relation import RelationOptions, relation_labels
from .statistics import (
    GENERATOR_VERSION,
    describe_labels,
    merge_manifests,
    write_manifest,
)
from .template import Describe, TemplateOptions, template_labels
from .vocabulary import Vocabulary

__all__ = [
    'KINDS',
    'OUTPUTS',
    'Generation',
    'LabelMaker',
    'MakerSettings',
    'Models',
    'WriteReport',
    'generate',
    'merge_shards',
    'refuse_to_replace',
]

Options = (
    TemplateOptions | RelationOptions | CaptionOptions | GeometryOptions | AssignOptions
)
KINDS: Mapping[str, type[Options]] = dict(
    template=TemplateOptions,
    relation=RelationOptions,
    caption=CaptionOptions,
    geometry=GeometryOptions,
    assign=AssignOptions,
)
# Draws a file of labels, whose manifest is given, with images of a folder, on a page.
WriteReport = Callable[[Path, Mapping[str, Any], Path | None, Path], Any]
# What the labels of a source are made of.
_MADE_OF = dict(
    template=('detections',),
    relation=('triplets',),
    caption=('detections', 'captions'),
    geometry=('detections',),
    assign=('detections', 'texts'),
)
# What a run writes: the labels, and what stands beside them.
PREDICTIONS = ('.detections.json', '.captions.json')
OUTPUTS = ('', '.manifest.json', '.html', '.report', *PREDICTIONS)
# Images of a task: large enough that sending them costs little, small enough that all
# workers end at about the same time.
CHUNK = 256


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
        clip (Mapping, optional): Arguments of ``ClipAttributes`` but for its words, or
            of ``ClipAssignment``. Defaults to None: attributes are those of the
            detections, and words alone assign texts.
        use_attributes (bool): Whether attributes are used at all. Defaults to True.
    """

    kind: str
    options: Options
    source: str
    split: str = 'train'
    vocabulary: Mapping[str, str] = field(default_factory=dict)
    parser: str = PARSER
    clip: Mapping[str, Any] | None = None
    use_attributes: bool = True


@dataclass(frozen=True)
class Generation:
    """A run of a generator.

    Args:
        out (Path): JSON Lines to write; ``<out>.manifest.json`` and ``<out>.html``
            are put beside it.
        inputs (InputFiles): What is read.
        maker (MakerSettings): How labels are made.
        detector (Sequence[str], optional): Config, or name in the model zoo, and
            checkpoint of a detector to run on the images; its predictions go to
            ``<out>.detections.json``. Defaults to None.
        captioner (Sequence[str], optional): Name and weights of a CoCa to run on the
            images; its captions go to ``<out>.captions.json``. Defaults to None.
        shard (tuple[int, int]): Number of this part, from 1, and of all parts.
            Defaults to (1, 1).
        workers (int): Processes. Defaults to 1.
        batch_size (int): Images at once, for the models. Defaults to 8.
        device (str, optional): For the models. Defaults to None: a GPU where there is
            one.
        overwrite (bool): Whether what is there may be replaced. Defaults to False.
        min_score (float): Of detections that ``detector`` makes. Defaults to 0.3.
    """

    out: Path
    inputs: InputFiles
    maker: MakerSettings
    detector: Sequence[str] | None = None
    captioner: Sequence[str] | None = None
    shard: Shard = (1, 1)
    workers: int = 1
    batch_size: int = 8
    device: str | None = None
    overwrite: bool = False
    min_score: float = 0.3

    def check(self) -> None:
        """Raise if an argument makes no sense."""
        if not self.out.name or self.out.is_dir():
            raise ValueError(f'--out {self.out}: expected the name of a file to write.')
        for flag, value in (
            ('--workers', self.workers),
            ('--batch-size', self.batch_size),
        ):
            if value < 1:
                raise ValueError(f'{flag} {value}: expected a number of at least 1.')
        for score in (self.min_score, self.inputs.min_score):
            if not 0 <= score <= 1:
                raise ValueError(f'--min-score {score}: expected a number in [0, 1].')
        if not self.maker.source.strip() or not self.maker.split.strip():
            raise ValueError('--source and --split may not be empty.')
        if self.inputs.images is not None and not self.inputs.images.is_dir():
            raise ValueError(f'--images {self.inputs.images}: no such folder.')
        self._check_models()

    def _check_models(self) -> None:
        if self.detector is not None and self.inputs.detections is not None:
            raise ValueError('Give --detections or --detector, not both.')
        if self.detector is not None and len(self.detector) > 2:
            raise ValueError(
                f'--detector {" ".join(self.detector)}: expected CONFIG CHECKPOINT, or '
                'a name of the model zoo.'
            )
        for flag, model in (
            ('--detector', self.detector),
            ('--captioner', self.captioner),
        ):
            if model is not None and self.inputs.images is None:
                raise ValueError(f'{flag} reads images: give their folder by --images.')

    def settings(self) -> dict[str, Any]:
        """All that decides the labels, without paths of this machine."""
        settings = asdict(self.maker)
        settings['vocabulary'] = {
            key: _named(path) for key, path in self.maker.vocabulary.items()
        }
        if self.maker.clip is not None:
            clip = dict(self.maker.clip)
            clip.pop('folder')
            clip.pop('device', None)
            settings['clip'] = dict(clip, weights=_named(clip['weights']))
        settings['generator_version'] = GENERATOR_VERSION
        settings['inputs'] = self.inputs.fingerprint()
        if self.detector is not None:
            settings['detector'] = [_named(part) for part in self.detector]
            settings['detector_min_score'] = self.min_score
        if self.captioner is not None:
            settings['captioner'] = [_named(part) for part in self.captioner]
        if self.shard[1] > 1:
            settings['shard'] = list(self.shard)
            settings['shard_batch'] = self.shard_batch
        return settings

    @property
    def shard_batch(self) -> int:
        """Images that stay together in a shard: those of a batch of a model."""
        has_model = self.detector is not None or self.captioner is not None
        return self.batch_size if has_model else 1


def _named(value: str | Path) -> Any:
    """A file as its name and sha256, anything else as it is."""
    path = Path(value)
    if path.is_file():
        return dict(name=path.name, sha256=file_sha256(path))
    return str(value)


class Models(Protocol):
    """Models that a generator runs; whoever calls it brings them.

    They need PyTorch, which takes seconds to import and which rules do not need.
    """

    def detect(self, names: Sequence[str], upright: bool, work_dir: Path) -> Path:
        """Write the detections on some images as a COCO file."""

    def caption(
        self,
        ids: Sequence[int | str],
        names: Sequence[str],
        upright: bool,
        work_dir: Path,
    ) -> Path:
        """Write captions of some images as COCO caption results."""

    def describe(self, words: Sequence[str], upright: bool) -> Describe:
        """A function that gives detections one of the words as attribute."""

    def score(self, upright: bool) -> Score:
        """A function that scores how well boxes match texts."""


class LabelMaker:
    """Makes the labels of scenes.

    Args:
        settings (MakerSettings): How.
        describe (Callable, optional): Gives detections their attributes. Defaults to
            None: they have those of their file.
        score (Callable, optional): Scores how well boxes match texts, for 'assign'.
            Defaults to None: words alone decide.
    """

    def __init__(
        self,
        settings: MakerSettings,
        describe: Describe | None = None,
        score: Score | None = None,
    ) -> None:
        self.settings, self.describe, self.score = settings, describe, score
        self.vocabulary = Vocabulary.load(**settings.vocabulary)
        if settings.kind == 'caption':
            self.parse = load_parser(settings.parser)

    def labels(self, scene: Scene, dropped: Counter) -> list[PseudoLabel]:
        """The labels of an image; ``dropped`` gets what each rule left out."""
        options: Any = self.settings.options
        if not self.settings.use_attributes:
            plain = tuple(replace(d, attribute=None) for d in scene.detections)
            scene = replace(scene, detections=plain)
        elif scene.described:
            limits = options.attribute_iou, options.min_attribute_score
            copied = copy_attributes(
                scene.detections, scene.described, self.vocabulary, *limits
            )
            scene = replace(scene, detections=tuple(copied))
        make: dict[str, Callable[[], list[PseudoLabel]]] = dict(
            template=lambda: template_labels(
                scene, self.vocabulary, options, self.describe, dropped
            ),
            geometry=lambda: geometry_labels(
                scene, self.vocabulary, options, self.describe, dropped
            ),
            relation=lambda: relation_labels(scene, self.vocabulary, options, dropped),
            caption=lambda: caption_labels(
                scene, self.vocabulary, self.parse, options, dropped
            ),
            assign=lambda: assign_labels(
                scene, self.vocabulary, options, self.score, dropped
            ),
        )
        return make[self.settings.kind]()

    def __call__(self, scenes: Iterable[Scene]) -> tuple[bytes, Counter]:
        """The labels of some images.

        Args:
            scenes (Iterable[Scene]): The images.

        Returns:
            tuple[bytes, Counter]: ODVG JSON Lines; and what was counted: 'images',
            'labels', 'label: <kind of word>', 'left out: <reason>'.
        """
        lines: list[str] = []
        counts: Counter = Counter()
        for scene in scenes:
            dropped: Counter = Counter()
            labels = self.labels(scene, dropped)
            lines += [self._line(scene, i, label) for i, label in enumerate(labels)]
            counts['images'] += 1
            for what in _MADE_OF[self.settings.kind]:
                counts[f'images without {what}'] += not getattr(scene, what)
            counts['images with labels'] += bool(labels)
            counts['detections'] += len(scene.detections)
            counts['captions'] += len(scene.captions)
            counts['triplets'] += len(scene.triplets)
            counts['texts'] += len(scene.texts)
            counts['labels'] += len(labels)
            counts.update(f'label: {w}' for label in labels for w in label.words)
            counts.update({f'left out: {k}': n for k, n in dropped.items()})
        return ''.join(lines).encode(), counts

    def _line(self, scene: Scene, number: int, label: PseudoLabel) -> str:
        source = self.settings.source
        boxes = [[round(edge, 2) for edge in box] for box in label.boxes]
        return odvg_line(
            dict(
                image=scene.file_name,
                height=scene.height,
                width=scene.width,
                text=label.text,
                bboxes=boxes,
                sample_id=f'{source}_{scene.image_id}_{number}',
                split=self.settings.split,
                source=source,
            ),
            rule=label.rule,
            entities=label.entities,
            score=round(label.score, 4),
        )


_MAKER: LabelMaker


def _start_worker(settings: MakerSettings) -> None:
    """Prepare a worker, which ends when the command does, however that ends."""
    global _MAKER
    parent = multiprocessing.parent_process()
    if parent is not None:

        def end_with_parent() -> None:
            parent.join()
            os._exit(1)

        # The pool itself tells workers nothing when its process is killed: they would
        # wait for tasks for ever.
        threading.Thread(target=end_with_parent, daemon=True).start()
    _MAKER = LabelMaker(settings)


def _work(scenes: Sequence[Scene]) -> tuple[bytes, Counter]:
    return _MAKER(scenes)


def _make(
    scenes: Sequence[Scene],
    settings: MakerSettings,
    describe: Describe | None,
    workers: int,
    score: Score | None = None,
) -> Iterator[tuple[bytes, Counter]]:
    """The labels of chunks of images, in order whatever process makes them."""
    chunks = [scenes[i : i + CHUNK] for i in range(0, len(scenes), CHUNK)]
    # What is wrong with the settings is raised here, not in a worker.
    maker = LabelMaker(settings, describe, score)
    # A model that looks at crops takes nearly all the time, and is loaded once.
    has_model = describe is not None or score is not None
    if workers == 1 or has_model or len(chunks) < 2:
        yield from map(maker, chunks)
        return
    # Not forked: a process with PyTorch in it has threads, whose locks a fork may copy.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(
        min(workers, len(chunks)), context, _start_worker, (settings,)
    ) as pool:
        try:
            yield from pool.map(_work, chunks)
        except BrokenProcessPool as error:
            raise RuntimeError(
                'A worker was killed, perhaps for want of memory. Rerun the command '
                'with fewer --workers, or make --shard after --shard.'
            ) from error


def _resumed(
    make: Callable[[Sequence[Scene]], Iterator[tuple[bytes, Counter]]],
    scenes: Sequence[Scene],
    path: Path,
    origin: Mapping[str, Any],
    overwrite: bool,
) -> Iterator[tuple[bytes, Counter]]:
    """The labels of chunks of images, each made once; see :func:`resumable_map`."""
    made: Iterator[tuple[bytes, Counter]] | None = None

    def predict(numbers: Sequence[str]) -> Iterator[Any]:
        nonlocal made
        if made is None:
            made = make(scenes[int(numbers[0]) * CHUNK :])
        for lines, counts in islice(made, len(numbers)):
            yield lines.decode(), counts

    numbers = list(map(str, range(-(-len(scenes) // CHUNK))))
    for lines, counts in resumable_map(
        *(path, numbers, predict, 1, f'{CHUNK} images each'),
        origin=origin,
        overwrite=overwrite,
    ):
        yield lines.encode(), Counter(counts)


def refuse_to_replace(out: Path) -> None:
    """Raise if something is where a run writes."""
    for path in (Path(f'{out}{end}') for end in OUTPUTS):
        if os.path.lexists(path):
            raise FileExistsError(
                f'{path} exists. Remove it, give another --out, or say --overwrite.'
            )


def generate(
    job: Generation,
    models: Models | None = None,
    write_report: WriteReport | None = None,
) -> dict[str, Any]:
    """Make labels.

    What models have made, labels by CLIP included, stays in ``.<out>.unfinished`` until
    all labels are there, so that an interrupted command does not run them again; the
    rules take seconds.

    Args:
        job (Generation): What to do.
        models (Models, optional): Run the job's detector and captioner, and CLIP for
            attributes. Defaults to None: for jobs without any.
        write_report (Callable, optional): Draws the labels on a page, ``<out>.html``.
            Defaults to None: there is no page.

    Returns:
        dict: The manifest: ``settings``, ``counts``, ``statistics``.

    Raises:
        FileExistsError: The output is there, and may not be replaced.
        RuntimeError: Another process makes it.
        ValueError: An input is damaged; it says which entry of which file.
    """
    job.check()
    if not job.overwrite:
        refuse_to_replace(job.out)
    settings = job.settings()
    upright = job.inputs.is_upright()
    inputs, shard = replace(job.inputs, upright=upright), job.shard
    work_dir = job.out.with_name(f'.{job.out.name}.unfinished')
    with lock_folder(work_dir, every_process=True):
        write_captions: WriteCaptions | None = None
        if job.detector is not None:
            assert models is not None and inputs.images is not None
            names = list_images(inputs.images)
            mine = shard_range(len(names), shard, job.shard_batch)
            detections = models.detect(names[mine.start : mine.stop], upright, work_dir)
            # They are of the images of this shard alone.
            inputs, shard = replace(inputs, detections=detections), (1, 1)
        if job.captioner is not None:
            assert models is not None
            write_captions = partial(models.caption, upright=upright, work_dir=work_dir)
        scenes, counts = read_scenes(inputs, shard, write_captions, job.shard_batch)
        describe, score = _clip(job, models, upright)
        with (
            replacing(job.out) as unfinished,
            unfinished.open('wb') as file,
            tqdm(total=len(scenes), desc=job.maker.source, unit='image') as bar,
        ):

            def make(part: Sequence[Scene]) -> Iterator[tuple[bytes, Counter]]:
                return _make(part, job.maker, describe, job.workers, score)

            chunks = make(scenes)
            if job.maker.clip is not None:
                path, origin = work_dir / 'labels.jsonl', dict(settings, chunk=CHUNK)
                chunks = _resumed(make, scenes, path, origin, job.overwrite)
            for lines, chunk_counts in chunks:
                file.write(lines)
                counts.update(chunk_counts)
                bar.update(chunk_counts['images'])
            file.flush()
            manifest = _publish(
                *(unfinished, settings, counts, job.out, inputs.images, write_report)
            )
        # Last: an interrupted command finds them where it looks for them.
        for end in PREDICTIONS:
            if (work_dir / end[1:]).exists():
                os.replace(work_dir / end[1:], f'{job.out}{end}')
        shutil.rmtree(work_dir)
    return manifest


def _clip(
    job: Generation, models: Models | None, upright: bool
) -> tuple[Describe | None, Score | None]:
    """What CLIP does for the labels of a job: it names attributes, or scores texts."""
    if job.maker.clip is None:
        return None, None
    assert models is not None
    if job.maker.kind == 'assign':
        return None, models.score(upright)
    words = Vocabulary.load(**job.maker.vocabulary).attributes
    return models.describe(words, upright), None


def _publish(
    labels: Path,
    settings: Mapping[str, Any],
    counts: Counter,
    out: Path,
    images: Path | None,
    write_report: WriteReport | None,
) -> dict[str, Any]:
    """Write what stands beside the labels, before them; returns the manifest."""
    manifest = dict(
        # A name in files, which stays whatever the module is called.
        generator='projects.clip_vg.pseudo_labels',
        settings=dict(settings),
        counts=dict(sorted(counts.items())),
        statistics=describe_labels(labels, counts),
    )
    if write_report is not None:
        write_report(labels, manifest, images, Path(f'{out}.html'))
    write_manifest(manifest, out)
    return manifest


def merge_shards(
    shards: Sequence[Path],
    out: Path,
    images: Path | None,
    overwrite: bool = False,
    write_report: WriteReport | None = None,
) -> dict[str, Any]:
    """Make one file of labels of the shards of a run.

    Args:
        shards (Sequence[Path]): All of them, in any order, their manifests beside.
        out (Path): The file; the same bytes as from one run.
        images (Path, optional): Folder of the images, for the report.
        overwrite (bool): Whether what is there may be replaced. Defaults to False.
        write_report (Callable, optional): As of :func:`generate`. Defaults to None.

    Returns:
        dict: The manifest.

    Raises:
        FileExistsError: The output is there, and may not be replaced.
        ValueError: Shards are missing, doubled or of different runs.
    """
    if not overwrite:
        refuse_to_replace(out)
    ordered, settings, counts = merge_manifests(shards)
    out.parent.mkdir(parents=True, exist_ok=True)
    for end, join in zip(PREDICTIONS, (join_detections, join_captions), strict=True):
        parts = [Path(f'{shard}{end}') for shard in ordered]
        if all(part.is_file() for part in parts):
            join(parts, Path(f'{out}{end}'))
    with replacing(out) as unfinished:
        with unfinished.open('wb') as file:
            for shard in ordered:
                with shard.open('rb') as part:
                    shutil.copyfileobj(part, file)
        return _publish(unfinished, settings, counts, out, images, write_report)
