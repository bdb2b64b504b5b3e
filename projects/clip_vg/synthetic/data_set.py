"""Images of coloured shapes with referring expressions, in REFER's layout.

The built-in toy data set, for everyone who has no data. Everything is drawn from a
seed, and an expression is only selected if exactly one object of its image fits it,
with a margin, so that every label is true; with ``targets='any'`` there are expressions
of several objects and of none besides.
"""

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from projects.clip_vg_core.data.table_builder import TARGETS

from .any_targets import describe_none, describe_several
from .expressions import Shape, choose, describe
from .scenes import SHAPES, SIDES, draw, sample_scene

__all__ = ['make_synthetic']


def make_synthetic(
    root: str | Path,
    images: Mapping[str, int],
    seed: int = 0,
    max_expressions: int = 6,
    sides: Mapping[str, Sequence[float]] = SIDES,
    scale: int = 1,
    targets: str = 'one',
) -> Path:
    """Make a data set in REFER's layout; do nothing if the same one is there.

    ``root/images/*.jpg``, ``root/shapes/instances.json``,
    ``root/shapes/refs(synthetic).p``, and ``root/shapes/manifest.json`` with what
    made it. The folder is complete or not there: it is made under another name
    and renamed.

    Args:
        root (str or Path): Output folder.
        images (Mapping[str, int]): Number of images of each split.
        seed (int): Decides everything. Defaults to 0.
        max_expressions (int): Most expressions for an image. Defaults to 6.
        sides (Mapping[str, Sequence[float]]): Sizes of the objects, as ``SIDES``,
            which is the default.
        scale (int): How many times larger images are drawn, with as many more pixels
            for each object. Defaults to 1: the long side has 160.
        targets (str): 'any' adds ``root/shapes/grefs(synthetic).json`` in gRefCOCO's
            layout: the same labels, and up to half of ``max_expressions`` with several
            targets and as many with none. All other files are those of 'one', but
            for the manifest. Defaults to 'one'.

    Returns:
        Path: ``root``.

    Raises:
        FileExistsError: ``root`` has something else in it.
        ValueError: ``targets`` is neither.
    """
    if targets not in TARGETS:
        raise ValueError(f'targets={targets!r}; expected one of {TARGETS}.')
    root = Path(root)
    manifest: dict[str, Any] = dict(
        # A name in files, which stays whatever the module is called.
        generator='projects.clip_vg.datasets.synthetic',
        version=1,
        seed=seed,
        images=dict(images),
        max_expressions=max_expressions,
    )
    # Only where they differ, so that data sets of earlier versions are known again.
    if sides != SIDES:
        manifest['sides'] = {size: list(limits) for size, limits in sides.items()}
    if scale != 1:
        manifest['scale'] = scale
    if targets != 'one':
        manifest['targets'] = targets
    known = root / 'shapes' / 'manifest.json'
    if known.is_file() and json.loads(known.read_text()) == manifest:
        return root
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(
            f'{root} has other files than this data set ({manifest}). '
            'Remove it or give another folder.'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=root.parent, prefix=f'.{root.name}.'))
    try:
        _write(partial, images, seed, max_expressions, sides, scale, targets)
        (partial / 'shapes' / 'manifest.json').write_text(json.dumps(manifest))
        if root.exists():
            root.rmdir()
        os.chmod(partial, 0o755)  # mkdtemp's are for their owner alone
        os.replace(partial, root)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return root


def _write(
    root: Path,
    images: Mapping[str, int],
    seed: int,
    max_expressions: int,
    sides: Mapping[str, Sequence[float]],
    scale: int,
    targets: str,
) -> None:
    (root / 'images').mkdir()
    (root / 'shapes').mkdir()
    instances: dict[str, list] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(SHAPES)],
    )
    refs: list[dict] = []
    others: list[dict] = []
    for split, count in images.items():
        for number in range(count):
            # An image depends on seed, split and number alone.
            rng = np.random.default_rng([seed, *split.encode(), number])
            scene = _enlarged(*sample_scene(rng, sides), scale)
            _add_image(root, split, rng, scene, instances, refs, max_expressions)
            if targets == 'any':
                # Drawn apart, so that all else stays as it is without.
                apart = np.random.default_rng([seed, *split.encode(), number, 1])
                others += _any_targets(split, apart, scene, instances, max_expressions)
    (root / 'shapes' / 'instances.json').write_text(json.dumps(instances))
    with (root / 'shapes' / 'refs(synthetic).p').open('wb') as file:
        pickle.dump(refs, file, protocol=2)  # REFER's own files are of protocol 2
    if targets == 'any':
        grefs = [dict(ref, ann_id=[ref['ann_id']], no_target=False) for ref in refs] + [
            _numbered(ref, len(refs) + place) for place, ref in enumerate(others)
        ]
        (root / 'shapes' / 'grefs(synthetic).json').write_text(json.dumps(grefs))


def _enlarged(
    size: tuple[int, int], objects: Sequence[Shape], scale: int
) -> tuple[tuple[int, int], list[Shape]]:
    """A scene with ``scale`` times as many pixels along each side."""
    enlarged = []
    for item in objects:
        left, top, right, bottom = (edge * scale for edge in item.box)
        enlarged.append(replace(item, box=(left, top, right, bottom)))
    return (size[0] * scale, size[1] * scale), enlarged


def _add_image(
    root: Path,
    split: str,
    rng: np.random.Generator,
    scene: tuple[tuple[int, int], list[Shape]],
    instances: dict[str, list],
    refs: list[dict],
    max_expressions: int,
) -> None:
    size, objects = scene
    image_id = len(instances['images']) + 1
    file_name = f'shapes_{image_id:06d}.jpg'
    draw(size, objects, rng).save(root / 'images' / file_name, quality=92)
    instances['images'].append(
        dict(id=image_id, file_name=file_name, width=size[0], height=size[1])
    )
    first = len(instances['annotations']) + 1
    for offset, item in enumerate(objects):
        left, top, right, bottom = (round(edge, 2) for edge in item.box)
        instances['annotations'].append(
            dict(
                id=first + offset,
                image_id=image_id,
                category_id=SHAPES.index(item.shape) + 1,
                bbox=[left, top, round(right - left, 2), round(bottom - top, 2)],
                area=round((right - left) * (bottom - top), 2),
                iscrowd=0,
                color=item.color,
                size=item.size,
            )
        )
    chosen = choose(list(describe(size, objects, rng)), max_expressions, rng)
    for kind, text, index in chosen:
        ref = dict(
            ann_id=first + index,
            image_id=image_id,
            category_id=SHAPES.index(objects[index].shape) + 1,
            split=split,
            file_name=file_name,
            kind=kind,
            text=text,
        )
        refs.append(_numbered(ref, len(refs)))


def _any_targets(
    split: str,
    rng: np.random.Generator,
    scene: tuple[tuple[int, int], list[Shape]],
    instances: dict[str, list],
    max_expressions: int,
) -> list[dict]:
    """The refs of the newest image that have several targets, or none."""
    size, objects = scene
    image = instances['images'][-1]
    first = len(instances['annotations']) - len(objects) + 1
    refs = []
    for expressions in (
        describe_several(size, objects, rng),
        describe_none(objects, rng),
    ):
        for kind, text, indices in choose(list(expressions), max_expressions // 2, rng):
            categories = [SHAPES.index(objects[i].shape) + 1 for i in indices]
            refs.append(
                dict(
                    ann_id=[first + index for index in indices] or [-1],
                    image_id=image['id'],
                    category_id=categories or [-1],
                    no_target=not indices,
                    split=split,
                    file_name=image['file_name'],
                    kind=kind,
                    text=text,
                )
            )
    return refs


def _numbered(ref: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A ref of one sentence, with the numbers of both."""
    text = ref['text']
    return dict(
        ref_id=number,
        **{key: value for key, value in ref.items() if key != 'text'},
        sent_ids=[number],
        sentences=[dict(sent_id=number, sent=text, raw=text, tokens=text.split())],
    )
