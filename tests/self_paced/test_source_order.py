"""The order of sources: by entities if the manifests say, else by words."""

import json

from mmdet.registry import DATASETS

from projects.clip_vg.self_paced.source_order import complexity
from projects.clip_vg_core.pseudo_labels.statistics import manifest_path

from ..helpers.configs import pool_config


def order(shapes, folder):
    dataset = DATASETS.build(pool_config(shapes, folder))
    dataset.full_init()
    return complexity(dataset)


def manifest(folder, name, entities):
    path = manifest_path(folder / f'{name}.jsonl')
    path.write_text(json.dumps(dict(statistics=dict(mean_entities=entities))))
    return path


def test_words_are_counted_where_a_manifest_is_missing(shapes, sources):
    what, words = order(shapes, sources)
    assert what == 'words'
    for name, value in words.items():
        lines = (sources / f'{name}.jsonl').read_text().splitlines()
        counts = [len(json.loads(x)['grounding']['caption'].split()) for x in lines]
        assert abs(value - sum(counts) / len(counts)) < 1e-6
    path = manifest(sources, 'one', 3.0)
    try:
        assert order(shapes, sources)[0] == 'words'
    finally:
        path.unlink()


def test_entities_are_taken_from_the_manifests(shapes, sources):
    paths = [manifest(sources, 'one', 3.0), manifest(sources, 'two', 1.5)]
    try:
        assert order(shapes, sources) == ('entities', dict(one=3.0, two=1.5))
    finally:
        for path in paths:
            path.unlink()
