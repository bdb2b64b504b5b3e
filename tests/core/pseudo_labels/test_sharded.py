"""Labels that several processes make: the bytes of one, whoever is killed when."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from projects.clip_vg_core.pseudo_labels import generation as generation_module
from projects.clip_vg_core.pseudo_labels import sharded
from projects.clip_vg_core.pseudo_labels.assign import AssignOptions
from projects.clip_vg_core.pseudo_labels.generation import (
    Generation,
    MakerSettings,
    generate,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.pseudo_labels.joining import join_captions, join_detections
from projects.clip_vg_core.pseudo_labels.sharded import find_shard, generate_sharded
from projects.clip_vg_core.pseudo_labels.template import TemplateOptions
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.shards import Shards

from ...helpers.labels import detection, instances, spread, write

IMAGES = list(range(1, 41))
FORK = multiprocessing.get_context('fork')
TEMPLATE = MakerSettings('template', TemplateOptions(), 'template')


@pytest.fixture
def whole(tmp_path):
    inputs = InputFiles(
        detections=write(tmp_path / 'detections.json', spread(IMAGES)),
        instances=write(tmp_path / 'instances.json', instances(IMAGES)),
    )
    return Generation(tmp_path / 'whole' / 'out.jsonl', inputs, TEMPLATE)


@pytest.fixture
def job(whole, tmp_path):
    """The same, made elsewhere in shards."""
    whole.out.parent.mkdir()
    generate(whole)
    return replace(whole, out=tmp_path / 'parts' / 'out.jsonl')


def contents(job):
    return {
        path.name: path.read_bytes()
        for path in job.out.parent.iterdir()
        if path.name.startswith('out')
    }


def shard(job, number, total=3):
    return generate_sharded(replace(job, shard=(number, total)))


def killed(target, *args):
    process = FORK.Process(target=target, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def _die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def _die_while_making(job, number):
    original = generation_module._make

    def make(*args):
        yield from original(*args)
        _die()

    generation_module._make = make
    shard(job, number)


def _die_while_removing(job, number):
    Shards.remove = _die
    shard(job, number)


def _die_while_merging(job, number):
    original = sharded.merge_shards

    def merge(*args):
        generation_module._publish = _die
        original(*args)

    sharded.merge_shards = merge
    shard(job, number)


@pytest.mark.parametrize('order', [(1, 2, 3), (3, 1, 2)])
def test_the_last_one_puts_all_together(whole, job, order):
    first, second, last = (shard(job, number) for number in order)
    assert first is second is None
    assert last == json.loads(
        (whole.out.parent / 'out.jsonl.manifest.json').read_text()
    )
    assert contents(job) == contents(whole)
    # Again, as a scheduler starts tasks again.
    assert shard(job, 2) == last
    assert contents(job) == contents(whole)


def test_more_shards_than_images(whole, job):
    for number in range(1, 51):
        shard(job, number, 50)
    assert contents(job) == contents(whole)


@pytest.mark.parametrize('finish', ['the shard again', 'all that are missing'])
def test_a_killed_shard_is_made_again(whole, job, finish):
    shard(job, 1)
    killed(_die_while_making, job, 2)
    assert shard(job, 3) is None
    assert not job.out.exists()
    if finish == 'the shard again':
        shard(job, 2)
    else:
        generate_sharded(job)
    assert contents(job) == contents(whole)


@pytest.mark.parametrize('die', [_die_while_merging, _die_while_removing])
def test_putting_together_can_be_killed(whole, job, die):
    shard(job, 1)
    shard(job, 2)
    killed(die, job, 3)
    shard(job, 1)
    assert contents(job) == contents(whole)


def test_shards_of_other_data_or_options_are_refused(job):
    shard(job, 1)
    other = replace(TEMPLATE, options=TemplateOptions(seed=1))
    with pytest.raises(ValueError, match='options.seed was 0, is 1'):
        shard(replace(job, maker=other), 2)
    with pytest.raises(ValueError, match='shards was 3, is 4'):
        shard(job, 2, 4)
    with pytest.raises(ValueError, match='options.seed'):
        generate_sharded(replace(job, maker=other))
    write(job.inputs.detections, spread(IMAGES, seed=1))
    with pytest.raises(ValueError, match='detections.sha256'):
        shard(job, 2)
    assert Shards(job.out).missing() == [2, 3]
    # Said so, they are made anew.
    for number in (2, 1, 3):
        shard(replace(job, overwrite=True), number)
    generate(replace(job, out=job.out.with_name('new.jsonl')))
    assert job.out.read_bytes() == job.out.with_name('new.jsonl').read_bytes()


def test_what_is_there_is_not_replaced(job):
    job.out.parent.mkdir()
    job.out.write_text('mine')
    with pytest.raises(FileExistsError, match='out.jsonl'):
        shard(job, 1)
    assert job.out.read_text() == 'mine'
    for number in (1, 2, 3):
        shard(replace(job, overwrite=True), number)
    assert job.out.read_text() != 'mine'


@pytest.mark.parametrize('rank', ['0', '1'])
def test_a_shard_is_made_by_one_process_at_a_time(job, monkeypatch, rank):
    monkeypatch.setenv('RANK', rank)
    shard(job, 1)
    with (
        lock_folder(Shards(job.out).part(2), every_process=True),
        pytest.raises(RuntimeError, match='2 is in use'),
    ):
        shard(job, 2)


def test_machines_without_a_common_disk_merge_by_hand(whole, job, tmp_path):
    outputs = [tmp_path / f'machine_{number}.jsonl' for number in (1, 2)]
    for number, out in enumerate(outputs, 1):
        shard(replace(job, out=out), number, 2)
    found = [find_shard(out) for out in outputs]
    job.out.parent.mkdir()
    generation_module.merge_shards(found, job.out, None)
    assert contents(job) == contents(whole)


class Scorer:
    """Stands for CLIP: prefers the first box, and counts the images that it sees."""

    def __init__(self, killed_at=None):
        self.seen, self.killed_at = [], killed_at

    def score(self, upright):
        return self

    def __call__(self, scene, texts, boxes):
        if len(self.seen) == self.killed_at:
            raise KeyboardInterrupt
        self.seen.append(scene.image_id)
        return np.tile(np.linspace(0.9, 0.1, len(boxes)), (len(texts), 1))


def test_texts_that_clip_assigned_are_not_assigned_again(tmp_path, monkeypatch):
    monkeypatch.setattr(generation_module, 'CHUNK', 7)
    texts = [dict(image=f'{i}.jpg', text='a dog') for i in IMAGES]
    path = tmp_path / 'texts.jsonl'
    path.write_text(''.join(json.dumps(text) + '\n' for text in texts))
    detections = [d for i in IMAGES for d in (detection(i), detection(i, score=0.5))]
    inputs = InputFiles(
        detections=write(tmp_path / 'detections.json', detections),
        instances=write(tmp_path / 'instances.json', instances(IMAGES)),
        images=tmp_path,
        texts=path,
    )
    clip = dict(model='stand-in', weights='none', folder='.')
    maker = MakerSettings('assign', AssignOptions(), 'assign', clip=clip)
    whole = Generation(tmp_path / 'whole.jsonl', inputs, maker)
    generate(whole, Scorer())
    job = replace(whole, out=tmp_path / 'out.jsonl')
    first, again = Scorer(killed_at=16), Scorer()
    with pytest.raises(KeyboardInterrupt):
        generate_sharded(replace(job, shard=(1, 2)), first)
    generate_sharded(replace(job, shard=(1, 2)), again)
    # Two chunks of 7 were on disk.
    assert again.seen == IMAGES[14:20] and first.seen == IMAGES[:16]
    generate_sharded(replace(job, shard=(2, 2)), Scorer())
    assert job.out.read_bytes() == whole.out.read_bytes()


def test_captions_of_shards_are_one_file(tmp_path):
    entries = [dict(image_id=i, caption=f'[{i}] "x", }}],') for i in range(5)]
    parts = []
    for number, part in enumerate((entries[:2], [], entries[2:])):
        parts.append(tmp_path / f'{number}.json')
        parts[-1].write_text(json.dumps(part, indent=0))
    join_captions(parts, tmp_path / 'out.json')
    assert (tmp_path / 'out.json').read_text() == json.dumps(entries, indent=0)
    join_captions(parts[1:2], tmp_path / 'none.json')
    assert (tmp_path / 'none.json').read_text() == '[]'


def test_detections_that_are_not_of_one_detector_are_not_joined(tmp_path):
    end = '"images": [],\n"annotations": []}\n'
    for name, head in (('a', '["x"]'), ('b', '["y"]')):
        (tmp_path / name).write_text(f'{{"categories": {head},\n{end}')
    a, b = tmp_path / 'a', tmp_path / 'b'
    with pytest.raises(ValueError, match='b begins with other categories'):
        join_detections([a, b], tmp_path / 'out')
    join_detections([a, a], tmp_path / 'out')
    assert (tmp_path / 'out').read_bytes() == a.read_bytes()
