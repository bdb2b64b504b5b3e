"""Running any detector of MMDetection on a folder of images."""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from projects.clip_vg_core.data.label_keys import images_fingerprint
from projects.clip_vg_core.pseudo_labels.inputs import UPRIGHT_MARK
from projects.clip_vg_core.pseudo_labels.predictions import read_image_size
from projects.clip_vg_core.utils.atomic import file_sha256, replacing
from projects.clip_vg_core.utils.image_files import as_rgb, open_image
from projects.clip_vg_core.utils.resumable import bind, resumable_map
from projects.clip_vg_core.utils.shards import shard_range

__all__ = ['detect', 'file_identity', 'find_detector']


def file_identity(value: str) -> str:
    """The sha256 of a file, wherever it lies; any other value, as a name, itself."""
    return file_sha256(value) if Path(value).is_file() else value


def _model_zoo() -> Iterator[tuple[str, str]]:
    """Names and aliases of MMDetection's models, and the addresses of their weights."""
    import mmdet
    from mmengine.fileio import load

    package = Path(mmdet.__file__).parent
    # An installed package has its configs in .mim, a checkout beside the package.
    folders = (package / '.mim', package.parent)
    folder = next((f for f in folders if (f / 'model-index.yml').is_file()), None)
    for metafile in load(folder / 'model-index.yml')['Import'] if folder else ():
        for model in load(folder / metafile)['Models']:
            aliases = model.get('Alias') or []
            aliases = [aliases] if isinstance(aliases, str) else aliases
            weights = model.get('Weights') or ''
            weights = weights[0] if isinstance(weights, list) else weights
            for name in (model['Name'], *aliases):
                yield name.strip(), weights


def find_detector(config: str) -> tuple[str, str]:
    """What MMDetection takes for a detector, and the address of its weights.

    Args:
        config (str): A file; or a model of MMDetection's zoo by its name, its alias, or
            its config, each with the prefix 'mmdet::' or without.

    Returns:
        tuple[str, str]: The file, or the name in the model zoo; and where its weights
        are, '' for a file.

    Raises:
        ValueError: It is neither; the nearest names are given.
    """
    if Path(config).is_file():
        return config, ''
    zoo = dict(_model_zoo())
    by_lower = {name.lower(): name for name in zoo}
    wanted = config.removeprefix('mmdet::').removesuffix('.py')
    wanted = wanted.rsplit('/', 1)[-1].lower()
    name = by_lower.get(wanted)
    if name is not None:
        return name, zoo[name]
    near = [other for other in by_lower if wanted and other.startswith(wanted)][:3]
    near = near or get_close_matches(wanted, by_lower, 3, 0.5)
    names = ', '.join(by_lower[match] for match in near) or 'none is near'
    raise ValueError(
        f'--detector {config}: no such file, and MMDetection has no model of this '
        f'name. Near names of its {len(zoo)} models: {names}. Give one of them, or '
        'the files CONFIG CHECKPOINT.'
    )


def _inferencer(
    batch_size: int,
    config: str,
    checkpoint: str | None,
    device: str | None,
    folder: Path,
    upright: bool,
) -> tuple[Callable[[Sequence[str]], list[Any]], list[str]]:
    """A detector as a function of file names, and the names of its classes."""
    from mmdet.apis import DetInferencer

    import projects.clip_vg  # noqa: F401  # it reads checkpoints

    config, address = find_detector(config)
    try:
        model = DetInferencer(config, checkpoint, device=device, show_progress=False)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise OSError(
            f'--detector {config}: its weights could not be fetched from '
            f'{checkpoint or address} ({error}). Without a network, copy that file '
            'here and give it: --detector CONFIG CHECKPOINT.'
        ) from error

    def predict(names: Sequence[str]) -> list[Any]:
        # Arrays, not files, which MMDetection always turns by their EXIF entry; and not
        # `out_dir`, where two images of one name would share a file.
        images = [_read(folder / name, upright) for name in names]
        predicted = model(images, batch_size=batch_size)
        return [
            {key: one[key] for key in ('labels', 'scores', 'bboxes')}
            for one in predicted['predictions']
        ]

    return predict, list(model.model.dataset_meta['classes'])


def _read(path: Path, upright: bool) -> np.ndarray:
    """An image in BGR, of shape (H, W, 3), as labels see it."""
    try:
        with open_image(path) as image:
            return np.ascontiguousarray(np.asarray(as_rgb(image, upright))[..., ::-1])
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as an image: {error}.') from error


def _part(
    number: int,
    part: Path,
    names: Sequence[str],
    batch_size: int,
    overwrite: bool,
    origin: Mapping[str, Any],
    *model: Any,
) -> tuple[list[str], int]:
    """Detect on a part of the images, in a process of its own."""
    predict, classes = _inferencer(batch_size, *model)
    lines = resumable_map(
        *(part, names, predict, batch_size, 'detecting'),
        hidden=number > 0,
        # Of the images of this part, which does not see the others.
        origin=dict(origin, images=images_fingerprint(model[3], names)),
        overwrite=overwrite,
    )
    return classes, sum(1 for _ in lines)


def detect(
    config: str,
    checkpoint: str | None,
    folder: Path,
    names: Sequence[str],
    out: Path,
    work_dir: Path,
    *,
    batch_size: int = 8,
    processes: int = 1,
    device: str | None = None,
    min_score: float = 0.3,
    overwrite: bool = False,
    upright: bool = False,
) -> Path:
    """Write the detections of a model as one COCO file.

    Args:
        config (str): Config of any MMDetection detector, or a name of its model zoo,
            see :func:`find_detector`.
        checkpoint (str, optional): Its weights; None for those of the model zoo.
        folder (Path): Of the images.
        names (Sequence[str]): Of the images, in a fixed order.
        out (Path): The file: ``images``, ``categories``, and ``annotations`` with
            ``score``; what is there of these images already is taken as it is.
        work_dir (Path): For what is not finished.
        batch_size (int): Images at once. Defaults to 8.
        processes (int): Each with a model of its own. Defaults to 1.
        device (str, optional): Defaults to None: a GPU where there is one.
        min_score (float): Less sure detections are not written. Defaults to 0.3, as in
            MMDetection's inferencer.
        overwrite (bool): Whether what was detected on other images is made anew.
            Defaults to False.
        upright (bool): Whether images are turned by their EXIF entry. Defaults to
            False.

    Returns:
        Path: ``out``.

    Raises:
        ValueError: What is there is of other images (other names or bytes), or of
            another model.
    """
    config, _ = find_detector(config)
    origin = dict(
        images=images_fingerprint(folder, names),
        upright=upright,
        config=file_identity(config),
        checkpoint=checkpoint and file_identity(checkpoint),
    )
    # Parts have detections of any score, and serve for another limit.
    bind(out, dict(origin, min_score=min_score), overwrite)
    if out.exists():
        return out
    # In the batches of one process, on which predictions depend by rounding.
    ranges = [
        shard_range(len(names), (i + 1, processes), batch_size)
        for i in range(processes)
    ]
    jobs = [
        (
            i,
            work_dir / f'detected_{i}_of_{processes}.jsonl',
            names[own.start : own.stop],
        )
        for i, own in enumerate(ranges)
        if own
    ]
    model = (config, checkpoint, device, folder, upright)
    if len(jobs) == 1:
        classes, _ = _part(*jobs[0], batch_size, overwrite, origin, *model)
    else:
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(len(jobs), context) as pool:
            futures = [
                pool.submit(_part, *job, batch_size, overwrite, origin, *model)
                for job in jobs
            ]
            classes = [future.result()[0] for future in futures][0]
    with replacing(out) as partial, partial.open('w', encoding='utf-8') as file:
        _write_coco(file, folder, upright, jobs, classes, min_score)
    return out


def _write_coco(
    file: Any,
    folder: Path,
    upright: bool,
    jobs: Sequence[tuple[int, Path, Sequence[str]]],
    classes: Sequence[str],
    min_score: float,
) -> None:
    """Put the parts together, image by image."""
    categories = [dict(id=i, name=name) for i, name in enumerate(classes)]
    file.write(UPRIGHT_MARK.decode() if upright else '{')
    file.write('"categories": ' + json.dumps(categories) + ',\n"images": [')
    comma = '\n'
    for _, _, names in jobs:
        for name in names:
            width, height = read_image_size(folder / name, upright)
            image = dict(id=name, file_name=name, width=width, height=height)
            file.write(comma + json.dumps(image))
            comma = ',\n'
    file.write('],\n"annotations": [')
    comma = '\n'
    for _, part, names in jobs:
        with part.open(encoding='utf-8') as lines:
            for name, line in zip(names, lines, strict=True):
                predicted = json.loads(line)
                for label, score, box in zip(
                    predicted['labels'],
                    predicted['scores'],
                    predicted['bboxes'],
                    strict=True,
                ):
                    if score < min_score:
                        continue
                    left, top, right, bottom = box
                    entry = dict(
                        image_id=name,
                        category_id=label,
                        bbox=[left, top, right - left, bottom - top],
                        score=min(score, 1.0),
                    )
                    file.write(comma + json.dumps(entry))
                    comma = ',\n'
    file.write(']}\n')
