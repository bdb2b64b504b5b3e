"""Runs of the generators: the same bytes however they are made; nothing is lost."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.datasets import ODVGDataset
from mmdet.registry import DATASETS
from PIL import Image

from projects.clip_vg.labelling.detector import detect
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.pseudo_labels import generation as generation_module
from projects.clip_vg_core.pseudo_labels.generation import (
    KINDS,
    Generation,
    MakerSettings,
    generate,
    merge_shards,
)
from projects.clip_vg_core.pseudo_labels.geometry import GeometryOptions
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.pseudo_labels.statistics import manifest_path, summary
from projects.clip_vg_core.pseudo_labels.template import TemplateOptions
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.visualization.pseudo_label_report import write_label_report

from ...helpers.labels import detection, instances, spread, write

IMAGES = list(range(1, 41))
FORK = multiprocessing.get_context('fork')
TEMPLATE = MakerSettings('template', TemplateOptions(), 'template')


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(generation_module, 'CHUNK', 7)


@pytest.fixture
def inputs(tmp_path):
    return InputFiles(
        detections=write(tmp_path / 'detections.json', spread(IMAGES)),
        instances=write(tmp_path / 'instances.json', instances(IMAGES)),
    )


def job(tmp_path, inputs, name='out.jsonl', **more):
    return Generation(tmp_path / name, inputs, more.pop('maker', TEMPLATE), **more)


def made(generation):
    manifest = generate(generation)
    return generation.out.read_bytes(), manifest


def test_lines_are_this_projects_own_format(tmp_path, inputs):
    data, manifest = made(job(tmp_path, inputs))
    table = read_annotations(tmp_path / 'out.jsonl')
    assert len(table) == manifest['statistics']['labels'] == data.count(b'\n') > 40
    # As in the manifests of version 0.1.
    assert manifest['generator'] == 'projects.clip_vg.pseudo_labels'
    assert set(table.source_names) == {'template'}
    first = json.loads(data.splitlines()[0])
    assert (first['split'], first['width'], first['height']) == ('train', 640, 480)


def test_mmdetections_own_dataset_reads_the_result(tmp_path, inputs):
    data, _ = made(job(tmp_path, inputs))
    dataset = ODVGDataset(
        ann_file=str(tmp_path / 'out.jsonl'),
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=[],
        return_classes=True,
    )
    assert len(dataset) == data.count(b'\n')
    line, info = json.loads(data.splitlines()[0]), dataset.get_data_info(0)
    assert info['text'] == line['grounding']['caption']
    assert info['instances'][0]['bbox'] == line['grounding']['regions'][0]['bbox']


def test_shards_put_together_are_one_run(tmp_path, inputs):
    whole, manifest = made(job(tmp_path, inputs))
    parts = [
        made(job(tmp_path, inputs, f'{i}.jsonl', shard=(i, 3)))[0] for i in (1, 2, 3)
    ]
    assert b''.join(parts) == whole
    assert all(parts)
    shards = [tmp_path / f'{i}.jsonl' for i in (2, 3, 1)]
    joined = merge_shards(shards, tmp_path / 'joined.jsonl', None)
    assert (tmp_path / 'joined.jsonl').read_bytes() == whole
    assert joined == manifest
    one, other = (manifest_path(tmp_path / n) for n in ('joined.jsonl', 'out.jsonl'))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['1', '2'], 'Expected the shards 1 to 3 of 3, found 1/3'),
        (['1', '2', '2'], 'Expected the shards'),
        (['whole'], 'is no shard'),
        (['1', '2', 'other'], 'other settings'),
    ],
)
def test_shards_that_do_not_fit(tmp_path, inputs, names, message):
    for i in (1, 2):
        generate(job(tmp_path, inputs, f'{i}.jsonl', shard=(i, 3)))
    generate(job(tmp_path, inputs, 'whole.jsonl'))
    other = replace(TEMPLATE, options=TemplateOptions(seed=1))
    generate(job(tmp_path, inputs, 'other.jsonl', shard=(3, 3), maker=other))
    shards = [tmp_path / f'{name}.jsonl' for name in names]
    with pytest.raises(ValueError, match=message):
        merge_shards(shards, tmp_path / 'joined.jsonl', None)
    assert not (tmp_path / 'joined.jsonl').exists()


@pytest.mark.parametrize(
    ('options', 'min_score', 'advice'),
    [
        (dict(min_area=1.0), 0.0, '--min-area'),
        (dict(), 1.0, '--min-score'),
    ],
)
def test_no_label_ends_with_the_option_to_change(
    tmp_path, inputs, options, min_score, advice
):
    maker = replace(TEMPLATE, options=TemplateOptions(**options))
    unsure = write(tmp_path / 'unsure.json', [detection(i, score=0.5) for i in IMAGES])
    inputs = replace(inputs, detections=unsure, min_score=min_score)
    data, manifest = made(job(tmp_path, inputs, maker=maker))
    assert data == b''
    assert advice in summary(manifest).splitlines()[-1]


@pytest.mark.parametrize(('score', 'is_unsure'), [(0.29, True), (0.3, False)])
def test_labels_of_unsure_detections_are_counted(tmp_path, inputs, score, is_unsure):
    unsure = write(tmp_path / 'd.json', [detection(i, score=score) for i in IMAGES])
    data, manifest = made(job(tmp_path, replace(inputs, detections=unsure)))
    labels = data.count(b'\n')
    assert manifest['statistics']['unsure_labels'] == labels * is_unsure
    said = summary(manifest).splitlines()[-1]
    assert ('--min-score 0.3' in said and f'{labels:,}' in said) is is_unsure


def test_processes_and_the_order_of_the_files_change_nothing(tmp_path, inputs):
    whole, manifest = made(job(tmp_path, inputs))
    assert made(job(tmp_path, inputs, 'two.jsonl', workers=2)) == (whole, manifest)
    data = json.loads(inputs.detections.read_text())
    # Of one image they keep their order, which breaks ties.
    turned = [entry for i in IMAGES[::-1] for entry in data if entry['image_id'] == i]
    images = instances(IMAGES[::-1])
    other = InputFiles(
        detections=write(tmp_path / 'turned.json', turned),
        instances=write(tmp_path / 'turned_images.json', images),
    )
    assert made(job(tmp_path, other, 'turned.jsonl'))[0] == whole


@pytest.mark.parametrize(('workers', 'after'), [(1, 0), (1, 3), (2, 3)])
def test_a_run_that_is_killed_leaves_nothing_in_the_way(
    tmp_path, inputs, workers, after
):
    whole, manifest = made(job(tmp_path, inputs))
    again = job(tmp_path, inputs, 'again.jsonl', workers=workers)
    process = FORK.Process(target=_die_after, args=(again, after))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not again.out.exists()
    # Nor do its workers wait for ever for tasks that nobody gives them.
    pids = list(map(int, (tmp_path / 'workers').read_text().split()))
    assert len(pids) == (workers if workers > 1 else 0)
    until = time.monotonic() + 60
    while any(Path(f'/proc/{pid}/exe').exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert made(again) == (whole, manifest)
    rest = {path.name for path in tmp_path.iterdir() if 'again' in path.name}
    assert rest == {'again.jsonl', 'again.jsonl.manifest.json'}


def _die_after(generation, chunks):
    """Kill this process when it has the labels of some chunks."""
    original = generation_module._make

    def make(*args):
        for number, part in enumerate(original(*args)):
            if number == chunks:
                pids = [child.pid for child in multiprocessing.active_children()]
                path = generation.out.with_name('workers')
                path.write_text(' '.join(map(str, pids)))
                os.kill(os.getpid(), signal.SIGKILL)
            yield part

    generation_module._make = make
    generate(generation)


def test_a_failed_run_does_not_block_the_mended_one(tmp_path, inputs):
    write(inputs.detections, [*spread(IMAGES), detection(1, score=7)])
    with pytest.raises(ValueError, match='score is 7'):
        generate(job(tmp_path, inputs))
    write(inputs.detections, spread(IMAGES))
    data, _ = made(job(tmp_path, inputs))
    assert data == made(job(tmp_path, inputs, 'other.jsonl'))[0]


@pytest.mark.parametrize('end', ['manifest.json', 'html', 'report', 'detections.json'])
def test_what_lies_beside_is_not_overwritten_either(tmp_path, inputs, end):
    mine = tmp_path / f'out.jsonl.{end}'
    mine.write_text('mine')
    with pytest.raises(FileExistsError, match=end):
        generate(job(tmp_path, inputs))
    assert mine.read_text() == 'mine'


def test_a_run_killed_at_its_very_end_can_be_made_again(tmp_path, inputs, monkeypatch):
    whole, _ = made(job(tmp_path, inputs))
    again = job(tmp_path, inputs, 'again.jsonl')
    with monkeypatch.context() as patch:
        patch.setattr(generation_module.shutil, 'rmtree', lambda path: None)
        generate(again)
    assert made(replace(again, overwrite=True))[0] == whole
    assert not (tmp_path / '.again.jsonl.unfinished').exists()


@pytest.mark.parametrize('spoil', ['cut', 'torn', 'copied'])
def test_a_damaged_shard_is_not_merged(tmp_path, inputs, spoil):
    for i in (1, 2):
        generate(job(tmp_path, inputs, f'{i}.jsonl', shard=(i, 2)))
    one, two = tmp_path / '1.jsonl', tmp_path / '2.jsonl'
    data = two.read_bytes()
    spoilt = dict(
        cut=b''.join(data.splitlines(True)[:-1]),
        torn=data[:-9],
        copied=one.read_bytes(),
    )
    two.write_bytes(spoilt[spoil])
    with pytest.raises(ValueError, match='2.jsonl .*make the shard again'):
        merge_shards([one, two], tmp_path / 'joined.jsonl', None)
    assert not list(tmp_path.glob('*joined*'))


def test_more_shards_than_images(tmp_path):
    inputs = InputFiles(
        detections=write(tmp_path / 'd.json', [detection(1)]),
        instances=write(tmp_path / 'i.json', instances([1])),
    )
    for i in (1, 2):
        generate(job(tmp_path, inputs, f'{i}.jsonl', shard=(i, 2)))
    shards = [tmp_path / '1.jsonl', tmp_path / '2.jsonl']
    merged = merge_shards(shards, tmp_path / 'joined.jsonl', None)
    assert merged['statistics']['labels'] == 1


def test_what_is_left_out_while_reading_is_counted(tmp_path, inputs):
    crowd = dict(detection(2), iscrowd=1)
    write(
        inputs.detections, [detection(1), detection(1, score=0.1), crowd, detection(99)]
    )
    inputs.min_score, inputs.ignore_unknown_images = 0.5, True
    counts = generate(job(tmp_path, inputs))['counts']
    for reason in ('below --min-score', 'crowd', 'unknown image'):
        assert counts[f'left out: {reason}'] == 1


def test_a_dollar_and_a_missing_picture_do_not_cost_the_labels(tmp_path, inputs):
    listed = instances([1, 2])
    listed['categories'][0]['name'] = 'us$ sign$'
    write(inputs.instances, listed)
    write(inputs.detections, [detection(1), detection(2)])
    Image.new('RGB', (640, 480)).save(tmp_path / '1.jpg')
    inputs.images = tmp_path
    generate(job(tmp_path, inputs), write_report=write_label_report)
    page = Path(f'{tmp_path / "out.jsonl"}.html').read_text()
    assert 'Not to be read: 2.jpg' in page


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(workers=0), '--workers 0'),
        (dict(batch_size=0), '--batch-size 0'),
        (dict(min_score=2.0), '--min-score 2.0'),
        (dict(maker=replace(TEMPLATE, source=' ')), '--source'),
        (dict(detector=['a', 'b']), 'not both'),
        (dict(out=Path('')), '--out'),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(replace(job(tmp_path, inputs), **changes))


def test_a_picture_that_detectors_turn_is_refused(tmp_path, inputs):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48)).save(tmp_path / '1.jpg', exif=exif)
    (tmp_path / 'preds').mkdir()
    write(
        tmp_path / 'preds' / '1.json',
        dict(labels=[0], scores=[0.5], bboxes=[[1, 2, 30, 40]]),
    )
    folder = InputFiles(
        detections=tmp_path / 'preds',
        instances=write(tmp_path / 'i.json', instances([1])),
        images=tmp_path,
    )
    with pytest.raises(ValueError, match='1.jpg is turned by its EXIF entry'):
        generate(job(tmp_path, folder))


def test_nothing_is_overwritten_unless_asked(tmp_path, inputs):
    (tmp_path / 'out.jsonl').write_text('mine')
    with pytest.raises(FileExistsError, match='--overwrite'):
        generate(job(tmp_path, inputs))
    assert (tmp_path / 'out.jsonl').read_text() == 'mine'
    data, _ = made(job(tmp_path, inputs, overwrite=True))
    assert data.startswith(b'{"filename"')


def test_a_failed_run_leaves_what_was_there(tmp_path, inputs):
    before, _ = made(job(tmp_path, inputs))
    write(inputs.detections, [*spread(IMAGES), detection(1, score=7)])
    with pytest.raises(ValueError, match='score is 7'):
        generate(job(tmp_path, inputs, overwrite=True))
    assert (tmp_path / 'out.jsonl').read_bytes() == before


@pytest.mark.parametrize('ignored', [False, True])
def test_detections_of_images_that_are_not_listed(tmp_path, inputs, ignored):
    write(inputs.detections, [detection(99), detection(1)])
    inputs.ignore_unknown_images = ignored
    generation = job(tmp_path, inputs)
    if ignored:
        assert generate(generation)['counts']['detections'] == 1
        return
    with pytest.raises(
        ValueError, match='entry 1: image 99 is not among the 40'
    ) as got:
        generate(generation)
    assert '--ignore-unknown-images' in str(got.value)


def test_images_without_detections_are_counted(tmp_path, inputs):
    write(inputs.detections, [detection(1)])
    counts = generate(job(tmp_path, inputs))['counts']
    assert counts['images without detections'] == 39
    assert counts['images with labels'] == 1


def test_no_label_at_all_is_an_empty_file_with_a_manifest(tmp_path, inputs):
    write(inputs.detections, [])
    data, manifest = made(job(tmp_path, inputs))
    assert data == b''
    assert manifest['statistics']['labels'] == 0


def test_the_manifest_says_what_made_the_labels(tmp_path, inputs):
    _, manifest = made(job(tmp_path, inputs))
    on_disk = json.loads(manifest_path(tmp_path / 'out.jsonl').read_text())
    assert on_disk == json.loads(json.dumps(manifest))
    assert on_disk['settings']['options']['max_iou'] == 0.4  # the specification's
    assert on_disk['settings']['inputs']['detections']['name'] == 'detections.json'
    assert str(tmp_path) not in json.dumps(on_disk)
    lines = [json.loads(x) for x in (tmp_path / 'out.jsonl').read_text().splitlines()]
    words = [len(line['grounding']['caption'].split()) for line in lines]
    made_of = on_disk['statistics']
    assert made_of['mean_words'] == pytest.approx(sum(words) / len(words), abs=1e-4)
    assert sum(made_of['rules'].values()) == len(lines)
    assert sum(made_of['labels_per_image'].values()) == 40
    assert made_of['mean_entities'] == 1.0


def test_sizes_are_read_from_the_pictures_where_no_file_tells_them(tmp_path):
    for i in (1, 2):
        Image.new('RGB', (320, 200)).save(tmp_path / f'{i}.jpg')
    listed = instances([1, 2])
    for image in listed['images']:
        del image['width'], image['height']
    inputs = InputFiles(
        detections=write(tmp_path / 'd.json', [detection(1), detection(2)]),
        instances=write(tmp_path / 'i.json', listed),
    )
    with pytest.raises(ValueError, match="'1.jpg' and 1 more have no width"):
        generate(job(tmp_path, inputs))
    inputs.images = tmp_path
    data, _ = made(job(tmp_path, inputs))
    line = json.loads(data.splitlines()[0])
    assert (line['width'], line['height']) == (320, 200)
    # The box of the file passes the border of this small image.
    assert line['grounding']['regions'][0]['bbox'] == [10, 20, 210, 200]


def test_an_instances_file_is_images_and_detections_in_one(tmp_path):
    annotation = detection(1, score=0.5)
    path = write(tmp_path / 'i.json', instances([1], annotations=[annotation]))
    _, manifest = made(job(tmp_path, InputFiles(detections=path)))
    assert manifest['statistics']['labels'] == 1
    assert manifest['statistics']['mean_score'] == 0.5


def test_a_list_of_detections_does_not_say_what_its_images_are(tmp_path):
    inputs = InputFiles(detections=write(tmp_path / 'd.json', [detection(1)]))
    with pytest.raises(ValueError, match='--instances'):
        generate(job(tmp_path, inputs))


def test_less_sure_detections_are_left_out(tmp_path, inputs):
    inputs.min_score = 0.5
    _, manifest = made(job(tmp_path, inputs))
    sure = [entry for entry in spread(IMAGES) if entry['score'] >= 0.5]
    assert 0 < manifest['counts']['detections'] == len(sure) < len(spread(IMAGES))


def test_attributes_of_another_detector_are_copied(tmp_path):
    listed = write(tmp_path / 'i.json', instances([1]))
    named = detection(1, attributes=dict(red=0.9), bbox=[12, 22, 200, 300])
    inputs = InputFiles(
        detections=write(tmp_path / 'd.json', [detection(1)]),
        instances=listed,
        attributes=write(tmp_path / 'a.json', [named]),
    )
    data, _ = made(job(tmp_path, inputs))
    assert json.loads(data)['grounding']['caption'] == 'red person'
    plain = replace(TEMPLATE, use_attributes=False)
    data, _ = made(job(tmp_path, inputs, 'plain.jsonl', maker=plain))
    assert json.loads(data)['grounding']['caption'] == 'person'


def test_two_processes_do_not_make_the_same_file(tmp_path, inputs):
    with (
        lock_folder(tmp_path / '.out.jsonl.unfinished'),
        pytest.raises(RuntimeError, match='in use'),
    ):
        generate(job(tmp_path, inputs))


def test_the_report_needs_no_other_file(tmp_path, inputs):
    generate(job(tmp_path, inputs), write_report=write_label_report)
    page = Path(f'{tmp_path / "out.jsonl"}.html').read_text()
    assert 'data:image/png;base64,' in page
    assert 'src="/' not in page
    assert 'http' not in page.replace('http-equiv', '')
    assert 'overlapping' in page


def test_geometry_runs_on_the_same_inputs(tmp_path, inputs):
    maker = MakerSettings('geometry', GeometryOptions(), 'geometry')
    data, manifest = made(job(tmp_path, inputs, maker=maker))
    assert manifest['statistics']['mean_entities'] == 2.0
    assert data.count(b'\n') > 40


def turned_photograph(folder):
    """An image stored as 64 x 48 (W x H) and shown as 48 x 64, and detections."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / 'photographs').mkdir()
    Image.new('RGB', (64, 48)).save(folder / 'photographs' / '1.jpg', exif=exif)
    (folder / 'preds').mkdir()
    boxes = [[1, 2, 30, 60], [35, 2, 47, 60]]
    found = dict(labels=[0, 0], scores=[0.5, 0.5], bboxes=boxes)
    write(folder / 'preds' / '1.json', found)
    (folder / 'classes.txt').write_text('person\n')
    return InputFiles(
        detections=folder / 'preds',
        images=folder / 'photographs',
        classes=folder / 'classes.txt',
    )


def test_labels_of_photographs_are_of_upright_images(tmp_path):
    inputs = turned_photograph(tmp_path)
    manifest = generate(job(tmp_path, inputs))
    assert manifest['settings']['inputs']['upright'] is True
    config = dict(
        type='RefExpDataset',
        ann_file=str(tmp_path / 'out.jsonl'),
        data_prefix=dict(img=str(inputs.images)),
        pipeline=[dict(type='LoadGroundingImage')],
    )
    sample = DATASETS.build(dict(config, upright=True))[0]
    assert sample['img'].shape[:2] == (sample['height'], sample['width']) == (64, 48)
    with pytest.raises(ValueError, match='upright=True'):
        DATASETS.build(config)[0]
    with pytest.raises(ValueError, match='1.jpg is turned by its EXIF entry'):
        stored = replace(inputs, upright=False)
        generate(job(tmp_path, stored, 'other.jsonl'))


def test_labels_of_listed_images_are_of_images_as_stored(tmp_path):
    coco = write(tmp_path / 'i.json', instances([1]))
    assert not InputFiles(detections=tmp_path, instances=coco).is_upright()
    assert InputFiles(detections=tmp_path, instances=coco, upright=True).is_upright()


@pytest.mark.parametrize(('upright', 'shape'), [(True, (64, 48)), (False, (48, 64))])
def test_a_detector_sees_images_as_their_labels_do(
    tmp_path, monkeypatch, upright, shape
):
    """And its file says so to the generator, as in the tutorial's second command."""
    seen = []

    class Detector:
        """Stands for MMDetection's inferencer."""

        model = SimpleNamespace(dataset_meta=dict(classes=['person']))

        def __init__(self, *_, **__):
            pass

        def __call__(self, images, batch_size):
            seen.extend(image.shape[:2] for image in images)
            nothing = dict(labels=[], scores=[], bboxes=[])
            return dict(predictions=[nothing for _ in images])

    monkeypatch.setattr('mmdet.apis.DetInferencer', Detector)
    folder, out = turned_photograph(tmp_path).images, tmp_path / 'out.json'
    config = tmp_path / 'config.py'
    config.touch()
    detect(str(config), None, folder, ['1.jpg'], out, tmp_path, upright=upright)
    (image,) = json.loads(out.read_text())['images']
    assert seen == [shape] == [(image['height'], image['width'])]
    assert InputFiles(detections=out).is_upright() is upright


@pytest.mark.parametrize('kind', KINDS.values())
def test_counts_and_shares_out_of_range_are_refused(kind):
    for field in fields(kind):
        if isinstance(field.default, bool):
            continue
        for value in (-1, float('nan')):
            with pytest.raises(ValueError, match=f'{field.name}='):
                kind(**{field.name: value})
    kind(**{field.name: field.default for field in fields(kind)})


def test_limits():
    template, caption = KINDS['template'], KINDS['caption']
    template(max_iou=1, min_area=0, min_spread_pixels=300.0, seed=0)
    caption(captions_per_image=0)
    for wrong in (dict(max_iou=1.5), dict(objects=0), dict(min_area=5)):
        with pytest.raises(ValueError, match='expected a number'):
            template(**wrong)
