"""Which source of pseudo-labels is simpler than which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.data.readers.common import read_json
from projects.clip_vg_core.pseudo_labels.statistics import manifest_path

from ..datasets.refexp_dataset import RefExpDataset

__all__ = ['complexity']


def complexity(
    dataset: RefExpDataset, files: Sequence[LabelFile]
) -> tuple[str, dict[str, float]]:
    """How complex the language of each source is.

    The paper orders sources by the mean number of entities an expression, which only
    the generators' manifests say; where a source has none, words are counted.

    Args:
        dataset (RefExpDataset): Its labels.
        files (Sequence[LabelFile]): Its sources, in the order of its ``ann_files``.

    Returns:
        tuple[str, dict[str, float]]: 'entities' or 'words', and their mean number for
        each source.
    """
    entities = {
        file.source: _mean_entities(Path(path))
        for file, path in zip(files, dataset.ann_files, strict=True)
    }
    known = {name: value for name, value in entities.items() if value is not None}
    if len(known) == len(entities):
        return 'entities', known
    texts = dataset.table.texts
    spaces = np.r_[0, (texts.data == ord(' ')).cumsum()]
    starts = np.r_[0, texts.ends[:-1]]
    words = spaces[texts.ends] - spaces[starts] + 1
    return 'words', {
        file.source: float(words[dataset.indices_of(file)].mean()) for file in files
    }


def _mean_entities(labels: Path) -> float | None:
    manifest = manifest_path(labels)
    if not manifest.exists():
        return None
    return float(read_json(manifest)['statistics']['mean_entities'])
