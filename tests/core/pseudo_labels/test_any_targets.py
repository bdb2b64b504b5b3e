"""Pseudo-labels of several targets and of none."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.pseudo_labels.any_targets import (
    absent_labels,
    plural_labels,
)
from projects.clip_vg_core.pseudo_labels.generation import (
    Generation,
    MakerSettings,
    generate,
    merge_shards,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.pseudo_labels.plural import plural_of
from projects.clip_vg_core.pseudo_labels.template import TemplateOptions
from projects.clip_vg_core.visualization.pseudo_label_report import write_label_report

from ...helpers.labels import NAMES, instances, spread, write
from ...helpers.scenes import VOCABULARY, at, scene


@pytest.mark.parametrize(
    ('name', 'plural'),
    [
        ('car', 'cars'),
        ('person', 'people'),
        ('wine glass', 'wine glasses'),
        ('bus', 'buses'),
        ('bench', 'benches'),
        ('box', 'boxes'),
        ('cherry', 'cherries'),
        ('toy', 'toys'),
        ('knife', 'knives'),
        ('bookshelf', 'bookshelves'),
        ('giraffe', 'giraffes'),
        ('policewoman', 'policewomen'),
        ('human', 'humans'),
        ('sheep', 'sheep'),
        ('scissors', 'scissors'),
        ('teddy bear', 'teddy bears'),
        ('box of tissue', 'box of tissues'),
        ('cross', 'crosses'),
    ],
)
def test_plurals(name, plural):
    assert plural_of(name) == plural


def plurals(*detections):
    cleaned = dict(things=[d for d in detections if d.name != 'person'])
    cleaned['people'] = [d for d in detections if d.name == 'person']
    dropped = Counter()
    rng = np.random.default_rng(0)
    labels = plural_labels(cleaned, VOCABULARY, rng, dropped)
    found = {}
    for label in labels:
        noun = label.text.removeprefix('all ').removeprefix('both ')
        found[noun] = sorted(label.boxes), label.score
        assert label.rule == label.text.replace(noun, 'ns')
        assert not label.text.startswith('both') or len(label.boxes) == 2
        assert ('attribute' in label.words) == (' ' in noun)
    return found, dropped


def test_a_plural_has_all_boxes_of_the_class():
    dogs = [at(100 * n, 50, 'dog', score=0.9 - 0.1 * n) for n in range(1, 4)]
    found, _ = plurals(*dogs, at(50, 300, 'cat'))
    assert found == {'dogs': (sorted(dog.box for dog in dogs), dogs[-1].score)}


def test_an_attribute_and_a_class_are_a_group_where_all_have_one():
    def dog(x, attribute):
        return at(x, 50, 'dog', attribute=attribute)

    some = [dog(100, 'red'), dog(200, 'red'), dog(300, 'black')]
    found, _ = plurals(*some)
    assert set(found) == {'dogs', 'red dogs'}
    assert found['red dogs'][0] == [some[0].box, some[1].box]
    # The fourth may be red, too.
    found, dropped = plurals(*some, dog(400, None))
    assert set(found) == {'dogs'} and len(found['dogs'][0]) == 4
    assert dropped == {'plural of an attribute that some lack': 1}
    assert set(plurals(*some[:2])[0]) == {'dogs'}  # "red" tells nothing apart


def test_what_another_name_can_mean_has_no_plural():
    two = at(100, 50, 'table'), at(300, 50, 'table')
    assert set(plurals(*two)[0]) == {'tables'}
    found, dropped = plurals(*two, at(500, 50, 'dining table'))
    assert found == {} and sum(dropped.values()) == 1


def absent(detections, classes, count=9, seed=0):
    image = replace(scene(*detections), classes=tuple(classes))
    dropped = Counter()
    rng = np.random.default_rng(seed)
    return absent_labels(image, VOCABULARY, count, rng, dropped), dropped


def test_absent_is_what_no_detection_can_mean():
    classes = ['dog', 'table', 'dining table', 'man', 'boat', 'zebra', 'background']
    detections = [
        at(100, 50, 'dog', attribute='black'),
        at(300, 50, 'dining table', score=0.01),
        at(500, 50, 'woman'),
    ]
    nouns = Counter()
    for seed in range(20):
        labels, dropped = absent(detections, classes, seed=seed)
        assert len(labels) == 2 and dropped == {'absent class that may be another': 2}
        for label in labels:
            assert label.box is None and label.boxes == ()
            assert label.rule in ('absent n', 'absent ns')
            nouns[label.text] += 1
    forms = [form for n in ('boat', 'zebra') for form in (n, plural_of(n))]
    assert set(nouns) == {*forms, *(f'black {form}' for form in forms)}
    assert len(absent(detections, classes, count=1)[0]) == 1
    assert absent(detections, [])[0] == []


IMAGES = list(range(1, 31))


def job(folder, name, shard=(1, 1), **options):
    inputs = InputFiles(
        detections=write(folder / 'detections.json', spread(IMAGES)),
        instances=write(folder / 'instances.json', instances(IMAGES)),
    )
    maker = MakerSettings('template', TemplateOptions(**options), 'template')
    return Generation(folder / name, inputs, maker, shard=shard)


def test_they_are_labels_beside_the_others(tmp_path):
    both = dict(plural=True, absent=2)
    generate(job(tmp_path, 'one.jsonl'))
    manifest = generate(job(tmp_path, 'any.jsonl', **both), None, write_label_report)
    one = (tmp_path / 'one.jsonl').read_text().splitlines()
    lines = (tmp_path / 'any.jsonl').read_text().splitlines()
    # Those of one target are the same bytes, whatever else there is.
    rules = [json.loads(line)['rule'] for line in lines]
    kept = [
        line
        for line, rule in zip(lines, rules, strict=True)
        if 'ns' not in rule and 'absent' not in rule
    ]
    assert kept == one
    table = read_annotations(tmp_path / 'any.jsonl', targets='any')
    counts = table.target_counts()
    for count, rule, label in zip(counts.tolist(), rules, table, strict=True):
        assert (count == 0) == rule.startswith('absent')
        assert (count > 1) == (rule in ('ns', 'all ns', 'both ns'))
        name = label['text'].rsplit(' ', 1)[-1]
        assert count == 1 or name in {*NAMES, *map(plural_of, NAMES)}
    assert (counts == 0).sum() > 10 and (counts > 1).sum() > 10
    assert manifest['statistics']['labels'] == len(table)
    single = read_annotations(tmp_path / 'any.jsonl')
    assert len(single) == len(one) and len(single.notes) == 2


def test_shards_put_together_are_one_run(tmp_path):
    both = dict(plural=True, absent=2)
    generate(job(tmp_path, 'whole.jsonl', **both))
    shards = [tmp_path / f'{number}.jsonl' for number in (1, 2)]
    for number, path in enumerate(shards, 1):
        generate(job(tmp_path, path.name, (number, 2), **both))
    merge_shards(shards, tmp_path / 'joined.jsonl', None)
    whole = (tmp_path / 'whole.jsonl').read_bytes()
    assert (tmp_path / 'joined.jsonl').read_bytes() == whole
