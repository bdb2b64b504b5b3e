"""The built-in toy data set in the folders of RefCOCO, for smoke runs."""

from pathlib import Path

import numpy as np

from projects.clip_vg_core.data.readers import read_annotations, write_odvg

from .data_set import make_synthetic

__all__ = ['make_refcoco_layout']

_IMAGES = dict(train=24, val=8, testA=8, testB=8)
_SOURCES = ('template', 'relation', 'caption')
_WRONG = 0.25


def make_refcoco_layout(root: Path) -> Path:
    """Draw a small ``coco/refcoco`` with pseudo-labels, and ``coco/train2014``.

    Images, annotations and splits are in REFER's layout under the names that the files
    of RefCOCO have. The pseudo-labels of each source are the training labels, a quarter
    of them with the upper left quarter of the image as their box.

    Args:
        root (Path): The folder that has ``coco``. What is there already stays.

    Returns:
        Path: ``root``.
    """
    shapes = make_synthetic(root / 'shapes', _IMAGES)
    folder = root / 'coco' / 'refcoco'
    (folder / 'pseudo').mkdir(parents=True, exist_ok=True)
    for link, target in (
        (root / 'coco' / 'train2014', shapes / 'images'),
        (folder / 'instances.json', shapes / 'shapes' / 'instances.json'),
        (folder / 'refs(unc).p', shapes / 'shapes' / 'refs(synthetic).p'),
    ):
        if not link.exists():
            link.symlink_to(target.resolve())
    for seed, source in enumerate(_SOURCES):
        table = read_annotations(
            folder / 'instances.json',
            folder / 'refs(unc).p',
            splits=['train'],
            source=source,
        )
        rng = np.random.default_rng(seed)
        wrong = rng.random(len(table)) < _WRONG
        sizes = table.sizes[table.image_index[wrong]]
        table.boxes[wrong] = np.column_stack([0 * sizes, sizes[:, ::-1] / 2])
        write_odvg(table, folder / 'pseudo' / f'{source}.jsonl', overwrite=True)
    return root
