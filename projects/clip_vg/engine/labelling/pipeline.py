"""From pictures or their detections to a finished file of labels."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from projects.clip_vg_core.curriculum.reliability_file import file_sha256
from projects.clip_vg_core.pseudo_labels.filling import fill_store, shard_range
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.pseudo_labels.predictions import list_pictures
from projects.clip_vg_core.pseudo_labels.statistics import (
    GENERATOR_VERSION,
    describe_labels,
    manifest_path,
    merge_manifests,
)
from projects.clip_vg_core.pseudo_labels.store import SceneStore
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.visualization.pseudo_label_report import write_label_report

from .captioner import caption
from .detector import detect
from .maker import MakerSettings
from .run import LabelRun

__all__ = ['Generation', 'generate', 'merge_shards']


@dataclass(frozen=True)
class Generation:
    """A run of a generator.

    Args:
        out (Path): JSON Lines to write; ``<out>.manifest.json`` and ``<out>.html``
            are put beside it.
        inputs (InputFiles): What is read.
        maker (MakerSettings): How labels are made.
        detector (Sequence[str], optional): Config, or name in the model zoo, and
            checkpoint of a detector to run on the pictures; its answers are kept in
            ``<out>.detections.json``. Defaults to None.
        captioner (Sequence[str], optional): Name and weights of a CoCa to run on the
            pictures; its answers are kept in ``<out>.captions.json``. Defaults to None.
        shard (tuple[int, int]): Number of this part, from 1, and of all parts.
            Defaults to (1, 1).
        workers (int): Processes. Defaults to 1.
        batch_size (int): Pictures at once, for the models. Defaults to 8.
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
    shard: tuple[int, int] = (1, 1)
    workers: int = 1
    batch_size: int = 8
    device: str | None = None
    overwrite: bool = False
    min_score: float = 0.3

    def settings(self) -> dict[str, Any]:
        """All that decides the labels, without paths of this machine."""
        maker = asdict(self.maker)
        maker['vocabulary'] = {
            key: _named(path) for key, path in self.maker.vocabulary.items()
        }
        if self.maker.clip is not None:
            clip = dict(self.maker.clip)
            clip.pop('folder')
            clip.pop('device', None)
            maker['clip'] = dict(clip, weights=_named(clip['weights']))
        found = dict(
            maker,
            generator_version=GENERATOR_VERSION,
            inputs=self.inputs.fingerprint(),
        )
        if self.detector is not None:
            found['detector'] = [_named(part) for part in self.detector]
            found['detector_min_score'] = self.min_score
        if self.captioner is not None:
            found['captioner'] = [_named(part) for part in self.captioner]
        if self.shard[1] > 1:
            found['shard'] = list(self.shard)
        return found


def _named(value: str | Path) -> Any:
    """A file as its name and sha256, anything else as it is."""
    path = Path(value)
    if path.is_file():
        return dict(name=path.name, sha256=file_sha256(path))
    return str(value)


def _check(job: Generation) -> None:
    """Raise if an argument makes no sense."""
    if job.workers < 1 or job.batch_size < 1:
        raise ValueError(
            f'--workers {job.workers}, --batch-size {job.batch_size}: expected at '
            'least 1.'
        )
    for score in (job.min_score, job.inputs.min_score):
        if not 0 <= score <= 1:
            raise ValueError(f'--min-score {score}: expected a number in [0, 1].')
    if not job.maker.source.strip() or not job.maker.split.strip():
        raise ValueError('--source and --split may not be empty.')
    if job.detector is not None and job.inputs.detections is not None:
        raise ValueError('Give --detections or --detector, not both.')
    if job.detector is not None and len(job.detector) > 2:
        raise ValueError(
            f'--detector {" ".join(job.detector)}: expected CONFIG CHECKPOINT, or a '
            'name of the model zoo.'
        )
    images = job.inputs.images
    if images is not None and not images.is_dir():
        raise ValueError(f'--images {images}: no such folder.')


def _pictures(inputs: InputFiles, what: str) -> Path:
    if inputs.images is None:
        raise ValueError(f'{what} looks at pictures: give their folder by --images.')
    return inputs.images


def generate(job: Generation) -> dict[str, Any]:
    """Make labels, or go on making them.

    Args:
        job (Generation): What to do.

    Returns:
        dict: The manifest: ``settings``, ``counts``, ``statistics``.

    Raises:
        FileExistsError: The output is there, and may not be replaced.
        ValueError: An input is damaged; it says which entry of which file.
    """
    _check(job)
    settings = job.settings()
    upright = job.inputs.is_upright()
    with LabelRun(job.out, settings, job.overwrite).begun() as run:
        inputs, shard = replace(job.inputs, upright=upright), job.shard
        maker = job.maker
        if maker.clip is not None:
            maker = replace(maker, clip=dict(maker.clip, upright=upright))
        if job.detector is not None:
            folder = _pictures(inputs, '--detector')
            names = list_pictures(folder)
            mine = shard_range(len(names), shard)
            found = detect(
                job.detector[0],
                job.detector[1] if len(job.detector) > 1 else None,
                folder,
                names[mine.start : mine.stop],
                run.work_dir / 'detections.json',
                run.work_dir,
                batch_size=job.batch_size,
                processes=job.workers,
                device=job.device,
                min_score=job.min_score,
                overwrite=job.overwrite,
                upright=upright,
            )
            inputs, shard = replace(inputs, detections=found), (1, 1)

        def write_captions(ids: list[int | str], names: list[str]) -> Path:
            assert job.captioner is not None
            return caption(
                job.captioner[0],
                job.captioner[1],
                _pictures(inputs, '--captioner'),
                names,
                ids,
                run.work_dir / 'captions.json',
                run.work_dir,
                batch_size=job.batch_size,
                device=job.device,
                overwrite=job.overwrite,
                upright=upright,
            )

        store_path = run.store(
            lambda store: fill_store(
                store, inputs, shard, write_captions if job.captioner else None
            )
        )
        store = SceneStore(store_path)
        ranks = shard_range(len(store), shard)
        counts = Counter(store.counted())
        store.close()
        counts.update(run.make(store_path, ranks, maker, job.workers))
        manifest = _describe(run.labels, settings, counts)
        _publish(run.labels, manifest, job.out, inputs.images)
        for name in ('detections.json', 'captions.json'):
            if (run.work_dir / name).exists():
                os.replace(run.work_dir / name, f'{job.out}.{name}')
        run.finish()
    return manifest


def _describe(
    labels: Path, settings: Mapping[str, Any], counts: Counter
) -> dict[str, Any]:
    return dict(
        # A name in files, which stays whatever the module is called.
        generator='projects.clip_vg.pseudo_labels',
        settings=dict(settings),
        counts=dict(sorted(counts.items())),
        statistics=describe_labels(labels, counts),
    )


def _publish(
    labels: Path, manifest: Mapping[str, Any], out: Path, images: Path | None
) -> None:
    """Write what stands beside the labels, before them."""
    write_label_report(labels, manifest, images, Path(f'{out}.html'))
    with replacing(manifest_path(out)) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')


def merge_shards(
    shards: Sequence[Path], out: Path, images: Path | None, overwrite: bool = False
) -> dict[str, Any]:
    """Make one file of labels of the shards of a run.

    Args:
        shards (Sequence[Path]): All of them, in any order, their manifests beside.
        out (Path): The file; the same bytes as from one run.
        images (Path, optional): Folder of the pictures, for the report.
        overwrite (bool): Whether what is there may be replaced. Defaults to False.

    Returns:
        dict: The manifest.

    Raises:
        FileExistsError: The output is there, and may not be replaced.
        ValueError: Shards are missing, doubled or of different runs.
    """
    for path in (out, manifest_path(out), Path(f'{out}.html')):
        if os.path.lexists(path) and not overwrite:
            raise FileExistsError(f'{path} exists. Remove it, or say --overwrite.')
    ordered, settings, counts = merge_manifests(shards)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        with partial.open('wb') as file:
            for shard in ordered:
                with shard.open('rb') as part:
                    while block := part.read(1 << 20):
                        file.write(block)
        manifest = _describe(partial, settings, counts)
        _publish(partial, manifest, out, images)
    return manifest
