"""tools/check_data.py: what it prints and writes, and that its config trains."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from projects.clip_vg_core.data.readers import read_annotations

from .helpers import ROOT
from .helpers.commands import call, generate, tool
from .helpers.labels import instances, spread, write
from .helpers.shrink import LOADERS, clip_vg

BASE = ROOT / 'configs/_base_/clip_vg_b16_released.py'
# What of a process's modules takes seconds to import.
HEAVY = """
import runpy, sys
try:
    sys.argv[0] = sys.argv.pop(1)
    runpy.run_path(sys.argv[0], run_name='__main__')
finally:
    print(sorted({'torch', 'mmengine', 'mmdet', 'matplotlib'} & set(sys.modules)))
"""


def check(tmp_path, *args):
    """What is written as JSON, and the exit code."""
    out, code = tmp_path / 'check.json', 0
    try:
        call('check_data.py', *args, '--json', out, '--base', BASE)
    except SystemExit as error:
        code = error.code
    return json.loads(out.read_text()), code


def as_csv(shapes, path):
    """Labels of shapes as rows of names of their own, boxes as xywh."""
    table = read_annotations(
        shapes / 'shapes/instances.json', shapes / 'shapes/refs(synthetic).p'
    )
    with path.open('w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['picture', 'said', 'left', 'top', 'wide', 'high'])
        for label in table:
            x1, y1, x2, y2 = label['bbox']
            rows.writerow([label['image'], label['text'], x1, y1, x2 - x1, y2 - y1])
    return path


def step(config, tmp_path, shapes):
    """One training step of the printed config, its model small; its loaders."""
    path = tmp_path / 'printed.py'
    path.write_text(config)
    cfg = Config.fromfile(path)
    clip_vg(cfg, shapes, None)
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].arch.vision_cfg.patch_size = 56  # 16 tokens
    loaders = {}
    for key in LOADERS:
        cfg[key].update(batch_size=2, num_workers=0, persistent_workers=False)
        loaders[key] = Runner.build_dataloader(cfg[key], seed=0)
    batch = next(iter(loaders['train_dataloader']))
    model = MODELS.build(cfg.model)
    before = [p.detach().clone() for p in model.parameters()]
    losses = model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert losses['loss'].isfinite()
    pairs = zip(before, model.parameters(), strict=True)
    assert any(bool((old != new).any()) for old, new in pairs)
    next(iter(loaders['val_dataloader']))
    return {key: loader.dataset for key, loader in loaders.items()}


def test_the_config_of_a_refer_set_trains(shapes, tmp_path):
    found, code = check(tmp_path, shapes / 'shapes', '--images', shapes / 'images')
    assert code == 0
    (file,) = found['files']
    assert file['layout'] == 'refer' and file['images']['missing'] == 0
    assert len(found['config'].splitlines()) <= 10
    sets = step(found['config'], tmp_path, shapes)
    for key, split in zip(LOADERS, ('train', 'val', 'test'), strict=True):
        assert len(sets[key]) == file['splits'][split]['labels']
        assert set(sets[key].table.split_names[i] for i in sets[key].table.splits) == {
            split
        }


def test_files_without_a_validation_split_hold_images_out(shapes, sources, tmp_path):
    files = [sources / 'one.jsonl', sources / 'two.jsonl']
    lines = [json.loads(line) for file in files for line in file.open()]
    found, code = check(tmp_path, *files, '--images', shapes / 'images')
    assert code == 0
    sets = step(found['config'], tmp_path, shapes)
    train, val = (
        {label['image'] for label in sets[f'{key}_dataloader'].table}
        for key in ('train', 'val')
    )
    assert not train & val and train and val
    assert train | val == {line['filename'] for line in lines}


def test_options_that_were_needed_are_in_the_config(shapes, tmp_path):
    path = as_csv(shapes, tmp_path / 'mine.csv')
    found, code = check(
        *(tmp_path, path, '--images', shapes / 'images', '--box-format', 'xywh'),
        *('--fields', 'image=picture', 'text=said', 'box=left,top,wide,high'),
    )
    assert code == 0 and "box_format='xywh'" in found['config']
    sets = step(found['config'], tmp_path, shapes)
    sizes = [len(sets[key]) for key in LOADERS[:2]]
    assert sum(sizes) == len(path.read_text().splitlines()) - 1


@pytest.mark.parametrize('folder', ['', 'mine'])
def test_a_config_of_few_labels_is_written(shapes, tmp_path, folder):
    path, config = as_csv(shapes, tmp_path / 'mine.csv'), tmp_path / folder / 'mine.py'
    arguments = [path, '--images', shapes / 'images', '--config', config]
    fields = ['--fields', 'text=said', 'box=left,top,wide,high']
    with pytest.raises(SystemExit):  # columns are not known
        call('check_data.py', *arguments)
    assert not config.exists()
    call('check_data.py', *arguments, *fields, '--box-format', 'xywh')
    cfg = Config.fromfile(config)
    own = Config.fromfile(BASE.with_name('clip_vg_own_labels.py'))
    # Images of six expressions each: as many a step as the base has, four of an image.
    loader = cfg.train_dataloader
    together = loader.sampler.max_expressions
    assert loader.batch_size * together == own.train_dataloader.batch_size
    assert together == 4
    assert cfg.optim_wrapper == own.optim_wrapper and cfg.train_cfg == own.train_cfg
    sets = step(config.read_text(), tmp_path, shapes)
    assert len(sets['train_dataloader']) > len(sets['val_dataloader']) > 0
    with pytest.raises(FileExistsError, match=r'mine\.py'):
        call('check_data.py', *arguments, *fields)


def test_labels_of_no_target_or_several_get_a_model_that_has_scores(shapes, tmp_path):
    path, config = tmp_path / 'mine.csv', tmp_path / 'mine.py'
    names = sorted(p.name for p in (shapes / 'images').iterdir())[:20]
    boxes = ['[[1, 2, 30, 40], [5, 6, 30, 40]]', '[[1, 2, 30, 40]]', '[]']
    lines = [
        f'{name},text {i},"{box}"' for name in names for i, box in enumerate(boxes)
    ]
    path.write_text('\n'.join(['image,text,bbox_xyxy', *lines]))
    arguments = [path, '--images', shapes / 'images', '--config', config]
    call('check_data.py', *arguments)
    cfg = Config.fromfile(config)
    assert cfg.model.num_queries == 5 and cfg.model.confidence_head
    metric = cfg.val_evaluator.type
    assert metric == cfg.test_evaluator.type == 'GeneralizedGroundingMetric'
    assert cfg.default_hooks.checkpoint.save_best == 'grounding/f1_acc'
    sets = step(config.read_text(), tmp_path, shapes)
    counts = [set(sets[key].table.target_counts()) for key in LOADERS]
    assert counts == [{0, 1, 2}] * 3
    # With another base the same is in the printed lines.
    call('check_data.py', *arguments, '--base', BASE, '--overwrite')
    other = Config.fromfile(config)
    for key in ('num_queries', 'confidence_head'):
        assert other.model[key] == cfg.model[key]
    assert other.val_evaluator == cfg.val_evaluator
    assert other.train_dataloader.dataset.targets == 'any'


def test_a_set_without_a_training_split_is_for_testing(tmp_path):
    row = dict(caption='left man', bbox=[1, 2, 30, 40], bbox_id=1, file_name='a.jpg')
    path = tmp_path / 'ref_l4.jsonl'
    path.write_text(json.dumps(dict(row, id=1, split='val')) + '\n')
    found, _ = check(tmp_path, path)
    assert found['files'][0]['training_split'] is False
    assert 'train_dataloader' not in found['config']
    assert 'val_dataloader' in found['config']


@pytest.fixture
def normalised(tmp_path):
    rows = [dict(image='a.jpg', text='left man', bbox=[0.1, 0.2, 0.5, 0.6])] * 3
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def test_what_spoils_training_is_the_exit_code(shapes, normalised, tmp_path):
    found, code = check(tmp_path, normalised)
    assert code == 1 and found['config'] == ''
    assert found['files'][0]['boxes']['format'] is None
    _, code = check(tmp_path, tmp_path / 'no.json')
    assert code == 1
    # The shapes have labels that come again, which spoils nothing.
    found, code = check(tmp_path, shapes / 'shapes', '--strict')
    assert code == int(bool(found['files'][0]['problems']))


def test_leaks_between_files_are_found_and_dropped(shapes, sources, tmp_path):
    lines = (sources / 'one.jsonl').read_text().splitlines()
    held = [dict(json.loads(line), split='val') for line in lines[:2]]
    path = tmp_path / 'val.jsonl'
    path.write_text(''.join(json.dumps(line) + '\n' for line in held))
    train = sources / 'one.jsonl'
    found, code = check(tmp_path, train, path, '--images', shapes / 'images')
    (leak,) = found['leaks']
    images = {line['filename'] for line in held}
    same = [line for line in lines if json.loads(line)['filename'] in images]
    assert code == 1 and leak['count'] == len(same)
    sets = step(found['config'], tmp_path, shapes)
    assert len(sets['train_dataloader']) == len(lines) - len(same)
    assert len(sets['val_dataloader']) == len(held)
    assert len(found['config'].splitlines()) <= 10


def test_pseudo_labels_say_how_they_were_made(tmp_path):
    write(tmp_path / 'i.json', instances(range(1, 9)))
    write(tmp_path / 'd.json', spread(range(1, 9)))
    out = tmp_path / 'made.jsonl'
    generate(
        *('template', '--instances', tmp_path / 'i.json', '--out', out),
        *('--detections', tmp_path / 'd.json'),
    )
    found, _ = check(tmp_path, out)
    manifest = found['files'][0]['manifest']
    made = json.loads((tmp_path / 'made.jsonl.manifest.json').read_text())
    assert manifest['rules'] == made['statistics']['rules']
    assert manifest['source'] == 'template' and manifest['same']
    kinds = [problem['kind'] for problem in found['files'][0]['problems']]
    assert 'manifest' not in kinds
    lines = out.read_text().splitlines(keepends=True)
    out.write_text(''.join(lines[:-1]))
    found, _ = check(tmp_path, out)
    problems = {p['kind']: p for p in found['files'][0]['problems']}
    assert not found['files'][0]['manifest']['same']
    assert f'{len(lines):,}' in problems['manifest']['text']
    (tmp_path / 'made.jsonl.manifest.json').write_text('{"settings": 1}')
    found, _ = check(tmp_path, out)
    problems = {p['kind']: p for p in found['files'][0]['problems']}
    assert 'made.jsonl.manifest.json' in problems['manifest']['text']


def test_the_config_of_pseudo_labels_is_for_the_search(shapes, tmp_path):
    """Written, named and planned as docs/tutorial_without_labels.md has it."""
    objects = shapes / 'shapes/instances.json'
    files = [tmp_path / f'{kind}.jsonl' for kind in ('template', 'geometry')]
    for path in files:
        generate(
            *(path.stem, '--images', shapes / 'images', '--out', path),
            *('--instances', objects, '--detections', objects),
        )
    config = tmp_path / 'photographs.py'
    arguments = [*files, '--images', shapes / 'images', '--config', config]
    printed = tool('tools/check_data.py', *arguments).stdout
    command = re.search(r'python (tools/self_paced.py .*)', printed)[1]
    plan = tool(*shlex.split(command), '--dry-run', cwd=ROOT).stdout
    for path in files:
        count = len(path.read_text().splitlines())
        assert re.search(rf'{path.stem}: {count:,} labels', plan)


def test_the_page_shows_labels_and_escapes_them(shapes, sources, tmp_path):
    line = json.loads((sources / 'one.jsonl').open().readline())
    line['grounding']['caption'] = '<script>alert(1)</script>'
    line['grounding']['regions'][0]['phrase'] = '<script>alert(1)</script>'
    path = tmp_path / 'one.jsonl'
    path.write_text(json.dumps(line) + '\n')
    page = tmp_path / 'page.html'
    check(tmp_path, path, '--images', shapes / 'images', '--page', page)
    text = page.read_text()
    assert text.count('data:image/jpeg;base64,') == 1
    assert '<script>' not in text and '&lt;script&gt;' in text
    assert line['filename'] in text


def test_halves_of_characters_are_shown(tmp_path):
    row = dict(image='b\ud800.jpg', text='x \ud800', bbox_xyxy=[1, 2, 30, 40])
    path = tmp_path / 'rows.jsonl'
    path.write_text(json.dumps(dict(row, split='tr\ud800in')) + '\n')
    page = tmp_path / 'page.html'
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/check_data.py', path, '--page', page]
        + ['--images', tmp_path],
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING='ascii'),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr == ''  # the image is missing
    assert 'tr\\ud800in' in done.stdout and str(page) in done.stdout
    assert 'tr&#55296;in' in page.read_text()


def test_it_prints_to_stdout_without_what_is_heavy(shapes, tmp_path):
    out = tmp_path / 'check.json'
    done = subprocess.run(
        [sys.executable, '-c', HEAVY, ROOT / 'tools/check_data.py', shapes / 'shapes']
        + ['--json', out],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.rstrip().endswith('[]')
    found = json.loads(out.read_text())
    assert found['config'] in done.stdout
    for split in found['files'][0]['splits'].values():
        assert f'{split["labels"]:,}' in done.stdout
