"""Referring expressions as an MMDetection data set."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from projects.clip_vg_core.curriculum.reliability_file import (
    read_boxes,
    read_reliability,
    source_of,
)
from projects.clip_vg_core.data.box_checks import MANY_INVALID, check_fit
from projects.clip_vg_core.data.image_checks import describe_missing, describe_turned
from projects.clip_vg_core.data.image_roots import ImageRoots
from projects.clip_vg_core.data.label_files import (
    LabelFile,
    describe_files,
    describe_invalid,
    in_folds,
    make_ids_unique,
    of_images,
)
from projects.clip_vg_core.data.label_table import (
    LabelTable,
    concatenate,
    invalid_boxes,
)
from projects.clip_vg_core.data.leaks import describe_leaks, leaking_labels
from projects.clip_vg_core.data.readers import read_annotations

from .transforms.loading import LoadGroundingImage, turns_by_exif

__all__ = ['RefExpDataset']

# Images whose heads are read: a second on a local disk, at most a minute elsewhere.
_HEADS = 2000


@DATASETS.register_module()
class RefExpDataset(BaseDataset):
    """Labels of one or several annotation files in one index space.

    ``dataset[7]`` is one label: ``text`` is a str, with one box.
    ``dataset[3, 7, 9]`` is a grouped sample, several labels of one image: ``text``
    is a list, with as many boxes, in order. Boxes are xyxy in pixels of the
    original image until a transform changes them.

    Args:
        ann_file (str or Sequence[str]): Annotation files (sources), relative to
            ``data_root``; a ``{split}`` in a name is filled with every split.
        split_file (str or Sequence[str], optional): REFER's ``refs(...).p``, one
            for each annotation file. Defaults to None.
        split (str, Sequence[str] or Mapping, optional): The split or splits to keep;
            a mapping has those of each source, where these differ. Defaults to None:
            all.
        ann_format (str, optional): A layout of docs/data.md. Defaults to None: told
            by what is in the files.
        source (str or Sequence[str], optional): Names of the sources, one for
            each annotation file. Defaults to None: what the files say.
        int_boxes (bool): Whether boxes lose their fraction in the file's own
            format before anything else, as in the official code. Defaults to False.
        box_format (str, optional): 'xywh', 'xyxy' or 'cxcywh', where the files' boxes
            are not what their layout has. Defaults to None: as the layout says
            (docs/data.md).
        box_unit (str or Mapping, optional): 'pixel', '1', '999', '1000', '1024',
            'square' or 'resized', as of ``read_annotations``. Defaults to None: as the
            layout says.
        fields (Mapping, optional): Columns of files of rows, e.g. ``dict(image='file',
            text='caption', box=('x1', 'y1', 'x2', 'y2'))``. Defaults to None: by the
            usual names.
        instruction (str, optional): The form of questions in chat files, with
            ``{expression}``. Defaults to None: the known forms.
        targets (str): 'one' keeps the labels with exactly one target box and logs how
            many have none or several; 'any' keeps all, each sample having as many
            ``instances`` as targets, whose ``bbox_label`` is the number of their
            expression in the sample, and ``num_targets``. Defaults to 'one'.
        held_out (Mapping or Sequence[Mapping]): Files whose images must not be trained
            on: ``dict(ann_file=..., split_file=..., split=('val', 'testA'))``, with
            further arguments of ``read_annotations``. Without ``ann_file``, other
            splits of the same files: ``dict(split=...)``, as ``split``. Defaults to
            (): none.
        on_leak (str): What to do about labels of held-out images: 'error' or 'drop'.
            Defaults to 'error'.
        upright (bool): Whether images are turned by their EXIF entry, as viewers do:
            for labels that were drawn or made on upright images. Defaults to False:
            labels are of the images as stored, as those of published data sets.
        check_images (str): What to do about missing images as soon as the labels are
            read: 'error' (all at once), 'warn', or 'off'. The heads of up to 2,000
            images are read, too, for a warning about EXIF entries, and for the sizes
            that boxes must fit. Defaults to 'warn'.
        data_prefix (dict): ``img``, the folder of the images, relative to
            ``data_root``; a list of folders that are looked through; or a dict with a
            folder for each data set or source, where one name may be two images.
            Defaults to ``dict(img='')``.
        image_folds (dict, optional): ``dict(number=5, keep=[0, 1], seed=0)`` keeps
            the labels of those of 5 parts of the images; an image's part depends on
            its name and the seed alone. For measurers that score what they have not
            seen, and to hold labels out. Defaults to None: all.
        max_images (int, optional): The most images of each split whose labels are
            kept, to try things with a few; which, depends on their names alone.
            Defaults to None: all.
        pipeline (Sequence): Transforms. :obj:`LoadGroundingImage` loads images as
            the labels need them; MMCV's ``LoadImageFromFile`` alone turns them by
            its own arguments, whatever ``upright`` is, of which a warning tells.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`. Labels whose box is not
            finite, empty or outside of the image are counted and reported, and
            dropped unless ``filter_cfg=dict(invalid_boxes=False)`` keeps them, as the
            validation and test sets of our configs do: there they are misses.
            ``filter_cfg=dict(check_boxes=False)`` takes boxes that look like another
            format or unit as they are.

    Raises:
        FileNotFoundError: A file or the data root is missing, or an image with
            ``check_images='error'``.
        ValueError: An entry is wrong, a split is unknown, boxes look like another
            format or unit, or no label is left.
    """

    METAINFO = dict(classes=('referent',))

    def __init__(
        self,
        ann_file: str | Sequence[str],
        split_file: str | Sequence[str] | None = None,
        split: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        ann_format: str | None = None,
        source: str | Sequence[str] | None = None,
        int_boxes: bool = False,
        box_format: str | None = None,
        box_unit: str | Mapping[str, Any] | None = None,
        fields: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        targets: str = 'one',
        held_out: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
        on_leak: str = 'error',
        upright: bool = False,
        check_images: str = 'warn',
        data_prefix: dict | None = None,
        image_folds: Mapping[str, Any] | None = None,
        max_images: int | None = None,
        pipeline: Sequence[Any] = (),
        serialize_data: bool = False,
        **kwargs: Any,
    ) -> None:
        self.split_file = split_file
        self.splits = [split] if isinstance(split, str) else split
        self.ann_format = ann_format
        self.source = source
        self.int_boxes = int_boxes
        self.box_format = box_format
        self.box_unit = box_unit
        self.fields = fields
        self.instruction = instruction
        self.targets = targets
        self.held_out = [held_out] if isinstance(held_out, Mapping) else list(held_out)
        if on_leak not in ('error', 'drop'):
            raise ValueError(f"on_leak={on_leak!r}; expected 'error' or 'drop'.")
        self.on_leak = on_leak
        self.upright = upright
        if check_images not in ('error', 'warn', 'off'):
            raise ValueError(
                f"check_images={check_images!r}; expected 'error', 'warn' or 'off'."
            )
        self.check_images = check_images
        self.image_folds = image_folds
        self.max_images = max_images
        self.label_files: list[LabelFile] = []
        if serialize_data:
            print_log(
                'serialize_data=True is ignored: RefExpDataset keeps its labels in '
                'columns that workers share.',
                logger='current',
                level=logging.DEBUG,
            )
        super().__init__(
            ann_file=ann_file,
            data_prefix=data_prefix or dict(img=''),
            pipeline=pipeline,
            serialize_data=False,
            **kwargs,
        )
        self.check_loader()

    @property
    def table(self) -> LabelTable:
        """The labels as columns."""
        self.full_init()
        return self.data_list

    def _join_prefix(self) -> None:
        """Join paths, several annotation files included."""
        root = Path(self.data_root or '').expanduser()
        self.ann_files = [root / name for name in _as_list(self.ann_file)]
        self.split_files = [
            root / name if name else None for name in _as_list(self.split_file)
        ] or [None] * len(self.ann_files)
        self.sources = _as_list(self.source) or [None] * len(self.ann_files)
        for what, given in (('split_file', self.split_files), ('source', self.sources)):
            if len(given) != len(self.ann_files):
                raise ValueError(
                    f'{len(given)} {what} for {len(self.ann_files)} ann_file: give one '
                    'for each.'
                )
        self._splits_of_files(self.splits)  # as early as the number of files
        images = self.data_prefix.get('img', '')
        self.image_folders = dict(images) if isinstance(images, Mapping) else None
        if self.image_folders is not None:  # names begin with these folders
            images = ''
        self.data_prefix: dict[str, Any] = {
            key: str(root / prefix)
            for key, prefix in self.data_prefix.items()
            if key != 'img'
        }
        folders = [str(root / folder) for folder in _as_list(images)]
        self.data_prefix['img'] = folders[0] if len(folders) == 1 else folders
        self.image_roots = ImageRoots(folders)

    def load_data_list(self) -> LabelTable:
        """Read all annotation files into one table."""
        if self.data_root and not Path(self.data_root).expanduser().is_dir():
            raise FileNotFoundError(
                f'data_root={self.data_root!r} is not a folder (seen from '
                f'{Path.cwd()}). '
                'Link your data there or set `data_root` (docs/data.md has the layout).'
            )
        tables, stems = self._read_files(
            self._splits_of_files(self.splits),
            check_boxes=self._checks_boxes,
            targets=self.targets,
            training=not self.test_mode and self.splits is None,
        )
        for note in (note for table in tables for note in table.notes):
            self._warn(note)
        splits = self.splits
        if isinstance(splits, Mapping):
            splits = sorted({name for of in splits.values() for name in _as_list(of)})
        self.label_files = describe_files(tables, stems, splits, self.image_roots)
        return concatenate(make_ids_unique(tables, stems))

    def _splits_of_files(
        self, split: str | Sequence[str] | Mapping[str, Any] | None
    ) -> list[list[str] | None]:
        """The splits of each annotation file."""
        if not isinstance(split, Mapping):
            return [None if split is None else _as_list(split)] * len(self.ann_files)
        if set(split) != set(self.sources):
            raise ValueError(
                f'split={dict(split)} names the sources {sorted(split)}; the data set '
                f'has {self.sources}: name each, as in `source`.'
            )
        return [_as_list(split[str(source)]) for source in self.sources]

    def _read_files(
        self, splits: Sequence[list[str] | None], **options: Any
    ) -> tuple[list[LabelTable], list[str]]:
        """The labels of all annotation files, and the names of what was read.

        Args:
            splits (Sequence[list[str] or None]): Of each annotation file.
            **options: Of ``read_annotations``.
        """
        tables: list[LabelTable] = []
        stems: list[str] = []
        for ann_file, split_file, source, wanted in zip(
            self.ann_files, self.split_files, self.sources, splits, strict=True
        ):
            names = [str(ann_file)]
            if '{split}' in names[0]:
                if wanted is None:
                    raise ValueError(f'{ann_file} has a {{split}}, so give `split`.')
                names = [names[0].replace('{split}', name) for name in wanted]
            tables += [
                read_annotations(
                    name,
                    split_file,
                    splits=wanted if len(names) == 1 else None,
                    ann_format=self.ann_format,
                    source=source,
                    int_boxes=self.int_boxes,
                    box_format=self.box_format,
                    box_unit=self.box_unit,
                    fields=self.fields,
                    instruction=self.instruction,
                    read_sizes=self.image_roots.size_reader(self.upright),
                    image_folders=self.image_folders,
                    **options,
                )
                for name in names
            ]
            stems += [Path(name).stem for name in names]
        return tables, stems

    def indices_of(self, label_file: LabelFile) -> np.ndarray:
        """The labels of a file.

        Args:
            label_file (LabelFile): One of ``label_files``.

        Returns:
            np.ndarray: int64, their indices in this data set, ascending. Dropped
            labels have none.
        """
        return self.indices_and_rows(label_file)[0]

    def label_keys(self) -> np.ndarray:
        """Keys of the labels, uint64 (N, ), see :attr:`LabelFile.keys`."""
        keys = np.empty(len(self), np.uint64)
        for file in self.label_files:
            indices, rows = self.indices_and_rows(file)
            keys[indices] = file.keys[rows]
        return keys

    def indices_and_rows(self, label_file: LabelFile) -> tuple[np.ndarray, np.ndarray]:
        """Labels of a file: their indices here, and their rows in the file, (n, )."""
        table = self.table
        first = sum(
            file.count
            for file in self.label_files[: self.label_files.index(label_file)]
        )
        rows = np.arange(len(table)) if table.rows is None else table.rows
        indices = np.flatnonzero((rows >= first) & (rows < first + label_file.count))
        return indices, rows[indices] - first

    def read_reliability(self, path: str | Path) -> np.ndarray:
        """Reliability scores of the labels of one of the files.

        Args:
            path (str or Path): A reliability file.

        Returns:
            np.ndarray: float32 (N, ), a score for each label of this data set; NaN
            for those of other files.

        Raises:
            ValueError: It belongs to none of the annotation files, or does not score
                their labels as they are.
        """
        return self._joined(path, read_reliability)

    def read_predicted_boxes(self, path: str | Path) -> np.ndarray:
        """Boxes that were predicted for the labels of one of the files.

        Args:
            path (str or Path): As of :meth:`read_reliability`.

        Returns:
            np.ndarray: float32 (N, 4), xyxy in pixels of the original image; NaN for
            labels of other files.
        """
        return self._joined(path, read_boxes)

    def _joined(self, path: str | Path, read: Callable[..., np.ndarray]) -> np.ndarray:
        """What a reliability file has, as a column of all labels."""
        self.full_init()
        source = source_of(path)
        named = [file for file in self.label_files if file.source == source]
        if len(named) != 1:
            raise ValueError(
                f'{path} scores the source {source!r}; those of the data set are '
                f'{[file.source for file in self.label_files]}.'
            )
        indices, rows = self.indices_and_rows(named[0])
        values = read(path, named[0])
        column = np.full((len(self), *values.shape[1:]), np.nan, np.float32)
        column[indices] = values[rows]
        return column

    def fingerprint(self) -> str:
        """A sha256 of what all labels say: names, images, expressions, boxes."""
        self.full_init()
        digest = hashlib.sha256()
        for file in self.label_files:
            digest.update(np.ascontiguousarray(file.content).tobytes())
        rows = np.arange(len(self)) if self.table.rows is None else self.table.rows
        digest.update(rows.astype(np.int64).tobytes())
        return digest.hexdigest()

    @property
    def _steps(self) -> list:
        return self.pipeline.transforms

    def check_loader(self) -> None:
        """Warn of a loader whose images are not turned as the labels are."""
        turns = [turns_by_exif(step) for step in self._steps]
        if (not self.upright) in turns and not any(
            isinstance(step, LoadGroundingImage) for step in self._steps
        ):
            loads, wanted = 'turns images by', 'as stored'
            if self.upright:
                loads, wanted = 'ignores', 'as it turns them'
            self._warn(
                f'LoadImageFromFile {loads} their EXIF entry, and the labels are of '
                f'images {wanted} (upright={self.upright}): write '
                "dict(type='LoadGroundingImage') in its place, or behind it."
            )

    @property
    def _checks_boxes(self) -> bool:
        return (self.filter_cfg or {}).get('check_boxes', True)

    def _warn(self, text: str) -> None:
        print_log(text, logger='current', level=logging.WARNING)

    def _look_at_images(self, table: LabelTable) -> None:
        """Find the images, report missing and turned ones, check boxes by sizes."""
        roots = self.image_roots
        # Paths have one slash of two; a letter alone is a drive.
        remote = any(re.match(r'\w\w+:/', str(folder)) for folder in roots.folders)
        if self.check_images == 'off' or remote or not len(table):
            return
        used = np.unique(table.image_index)
        missing, renamed = roots.locate(table.images[i] for i in used)
        if renamed:
            self._warn(roots.describe_renamed(renamed))
        if missing:
            text = describe_missing(roots.folders[0], missing, len(used), str(roots))
            if self.check_images == 'error':
                raise FileNotFoundError(text)
            self._warn(text)
            return
        chosen = used[np.linspace(0, len(used) - 1, min(_HEADS, len(used))).astype(int)]
        names = [table.images[i] for i in chosen]
        sizes, turned = roots.heads(names, self.upright)
        if turned.any():
            self._warn(describe_turned(names, turned, len(used), self.upright))
        if self._checks_boxes:
            # Those that the files say were compared when they were read.
            unknown = (table.sizes[chosen] < 0).any(1)
            learnt = np.full_like(table.sizes, -1)
            learnt[chosen[unknown]] = sizes[unknown]
            files = ', '.join(map(str, self.ann_files))
            check_fit(replace(table, sizes=learnt), files)

    def _without_leaks(self, table: LabelTable) -> LabelTable:
        """Refuse or drop labels of images that are held out."""
        if not self.held_out:
            return table
        tables, files = [], []
        for options in self.held_out:
            more_tables, more_files = self._read_held_out(dict(options))
            tables += more_tables
            files += more_files
        leaking = leaking_labels(table, tables)
        if not len(leaking):
            return table
        text = describe_leaks(table, leaking, files)
        if self.on_leak == 'error':
            raise ValueError(f"{text}. Drop them with on_leak='drop'.")
        self._warn(f'{text}; they are dropped.')
        keep = np.ones(len(table), bool)
        keep[leaking] = False
        return table.take(np.flatnonzero(keep))

    def _read_held_out(
        self, options: dict[str, Any]
    ) -> tuple[list[LabelTable], list[str]]:
        """Labels whose images are held out, and the names of their files."""
        # An image is held out however many targets its labels have.
        defaults = dict(targets='any', check_boxes=False)
        split = options.pop('split', None)
        if 'ann_file' not in options:
            if split is None or options:
                raise ValueError(
                    f'held_out={self.held_out!r}: expected an ann_file, or a split of '
                    "this data set's own files alone."
                )
            splits = self._splits_of_files(split)
            tables, _ = self._read_files(splits, **defaults)
            return tables, [
                f'{split_file or ann_file} {of_file}'
                for ann_file, split_file, of_file in zip(
                    self.ann_files, self.split_files, splits, strict=True
                )
            ]
        root = Path(self.data_root or '').expanduser()
        file = root / options.pop('ann_file')
        split_file = options.pop('split_file', None)
        table = read_annotations(
            file,
            None if split_file is None else root / split_file,
            None if split is None else _as_list(split),
            **dict(defaults, **options),
        )
        return [table], [str(file)]

    def filter_data(self) -> LabelTable:
        """Drop labels with invalid boxes, and say how many and why."""
        table: LabelTable = self.data_list
        if self.max_images is not None:
            table = table.take(of_images(table, self.max_images))
        total = len(table)
        self._look_at_images(table)
        drop = (self.filter_cfg or {}).get('invalid_boxes', True)
        keep = np.ones(total, bool)
        texts = []
        for reason, indices in invalid_boxes(table):
            keep[indices] = False
            if len(indices):
                done = 'dropped' if drop else 'kept'
                texts.append(
                    describe_invalid(table, reason, indices, self.ann_files, done)
                )
        if (~keep).sum() > MANY_INVALID * total:
            texts[-1] += ' Is it xywh in the place of xyxy? Say `box_format` then.'
        for text in texts:
            self._warn(text)
        if drop and not keep.all():
            table = table.take(np.flatnonzero(keep))
        table = self._without_leaks(table)
        if self.image_folds:
            within = in_folds(table, **self.image_folds)
            if len(table) and not len(within):
                images = len(np.unique(table.image_index))
                raise ValueError(
                    f'image_folds={dict(self.image_folds)} has none of the {images:,} '
                    f'images of {", ".join(map(str, self.ann_files))}: take another '
                    'seed, or fewer parts.'
                )
            table = table.take(within)
        if not len(table):
            raise ValueError(
                f'No label is left of {total:,} in '
                f'{", ".join(map(str, self.ann_files))}'
                + (f', split {self.splits}.' if self.splits else '.')
            )
        return table

    def image_path(self, name: str) -> str:
        """The file of an image by its name in the labels."""
        return str(Path(self.image_roots.path(name)))

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the first (n > 0) or last (n < 0) labels, or those at indices."""
        self.data_list = self._get_unserialized_subset(indices)

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> LabelTable:
        if isinstance(indices, int):
            chosen = np.arange(len(self.data_list))
            chosen = chosen[:indices] if indices >= 0 else chosen[indices:]
        else:
            chosen = np.asarray(indices)
        return self.data_list.take(chosen)

    def prepare_data(self, idx: int | Sequence[int]) -> Any:
        """Run the pipeline; an unreadable image is named with its label."""
        if all(turns_by_exif(step) is None for step in self._steps):
            return super().prepare_data(idx)
        # MMCV's loader would wait for a pipe, and PIL's errors name no file.
        info = self.get_data_info(idx)
        path = Path(info['img_path'])
        if path.exists() and not path.is_file():
            LoadGroundingImage()(info)
        try:
            return self.pipeline(info)
        except (OSError, SyntaxError):
            LoadGroundingImage()(self.get_data_info(idx))
            raise

    def get_data_info(self, idx: int | Sequence[int]) -> dict:
        """One label, or several of one image, as a dict with MMDetection's keys.

        Args:
            idx (int or Sequence[int]): The label or labels.

        Returns:
            dict: ``img_id``, ``img_path``, ``height`` and ``width`` where known,
            ``text``, ``sample_id``, ``instances``, ``split``, ``source``. The
            latter two, ``text`` and ``sample_id`` are lists for a grouped
            sample; a single one has what MMDetection's ``ODVGDataset`` gives.

        Raises:
            ValueError: The labels are not of one image.
        """
        grouped = isinstance(idx, Sequence)
        indices = [int(i) for i in idx] if isinstance(idx, Sequence) else [int(idx)]
        labels = [self.table[i] for i in indices]
        first = labels[0]
        any_number = self.targets == 'any'
        if any(label['image'] != first['image'] for label in labels):
            raise ValueError(
                f'A grouped sample is of one image; labels {indices} are of '
                f'{sorted({label["image"] for label in labels})}.'
            )
        info = dict(
            img_id=first['img_id'],
            img_path=self.image_path(first['image']),
            sample_idx=tuple(indices) if grouped else indices[0],
            instances=[
                dict(bbox=box, bbox_label=number if any_number else 0, ignore_flag=0)
                for number, index in enumerate(indices)
                for box in self.table.targets(index).tolist()
            ],
        )
        if any_number:
            counts = self.table.target_counts()[indices].tolist()
            info['num_targets'] = counts if grouped else counts[0]
        for key in ('text', 'sample_id', 'split', 'source'):
            values = [label[key] for label in labels]
            info[key] = values if grouped else values[0]
        if not grouped:
            # For MMDetection's Grounding DINO: all of the expression is meant, in
            # its tests (-1) and in its training.
            text = info['text']
            phrase = dict(phrase=text, tokens_positive=[[0, len(text)]])
            info.update(tokens_positive=-1, phrases={0: phrase}, dataset_mode='VG')
        if self.upright:
            info['upright'] = True
        if first['height'] is not None:
            info.update(height=first['height'], width=first['width'])
        return info


def _as_list(value: Any) -> list:
    """A list of what was given singly or in a sequence."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
