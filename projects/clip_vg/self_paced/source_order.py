"""Order of sources of pseudo-labels, from simple to complex language."""

from pathlib import Path

import numpy as np

from projects.clip_vg_core.data.readers.common import read_json
from projects.clip_vg_core.pseudo_labels.statistics import manifest_path

from ..datasets.refexp_dataset import RefExpDataset

__all__ = ['complexity']


def complexity(dataset: RefExpDataset) -> tuple[str, dict[str, float]]:
    """How complex the language of each source is.

    The paper orders sources by the mean number of entities an expression, which only
    the manifests of generated labels have; where a source has none, words are counted.

    Args:
        dataset (RefExpDataset): Its labels, one annotation file for each source.

    Returns:
        tuple[str, dict[str, float]]: 'entities' or 'words', and their mean number for
        each source.
    """
    files = dataset.label_files
    manifests = [manifest_path(Path(path)) for path in dataset.ann_files]
    if all(path.exists() for path in manifests):
        return 'entities', {
            file.source: float(read_json(path)['statistics']['mean_entities'])
            for file, path in zip(files, manifests, strict=True)
        }
    texts = dataset.table.texts
    spaces = np.r_[0, (texts.data == ord(' ')).cumsum()]
    starts = np.r_[0, texts.ends[:-1]]
    words = spaces[texts.ends] - spaces[starts] + 1
    return 'words', {
        file.source: float(words[dataset.indices_of(file)].mean()) for file in files
    }
