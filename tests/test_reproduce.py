"""The reproduction's command: its recipe, plan and table, and rows run to the end."""

import json
import shutil
import sys

import pytest

from projects.clip_vg_core.data.readers import read_annotations, write_odvg

from .helpers import ROOT
from .helpers.commands import run, tool
from .helpers.five_sets import make_five_sets
from .helpers.pages import load

SCRIPT = 'tools/reproduce.py'
# A model that has learnt nothing predicts the middle.
MIDDLE = (12, 8, 36, 32)
# Data loaders in the process itself.
LOADERS = [
    f'{split}_dataloader.{word}'
    for split in ('train', 'val', 'test')
    for word in ('num_workers=0', 'persistent_workers=False')
]
SHORT = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2', *LOADERS]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Data in their folders, and pseudo-labels of RefCOCO."""
    root = make_five_sets(tmp_path_factory.mktemp('data') / 'all', MIDDLE)
    folder = root / 'coco/refcoco'
    (folder / 'pseudo').mkdir()
    labels = read_annotations(
        folder / 'instances.json', folder / 'refs(unc).p', splits=['train']
    )
    write_odvg(labels, folder / 'pseudo/template.jsonl')
    return root


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """All rows by their names, for options of a command line."""

    def make(*words):
        monkeypatch.setattr('sys.argv', [SCRIPT, '--work-dir', f'{tmp_path}', *words])
        script = load(SCRIPT)
        return {row.name: row for row in script.select_rows(script.parse_args())}

    return make


def test_every_row_is_of_a_config_and_of_numbers_that_the_docs_have(rows):
    text = (ROOT / 'docs/configs.md').read_text()
    found = rows()
    assert len(found) == 8 * 6
    for row in found.values():
        assert row.config.is_file()
        assert len(row.paper) == len(row.splits)
        line = next(li for li in text.splitlines() if f'| `{row.config.name}`' in li)
        if row.kind in ('full', 'single', 'multi'):
            assert ' / '.join(f'{n:.2f}' for n in row.paper) in line
            assert f'| {" / ".join(row.splits)} |' in line
    assert found['released_full_refcoco_plus'].paper == [71.08, 79.17, 59.40]
    assert found['released_full_refcoco'].paper == found['full_refcoco'].paper


@pytest.mark.parametrize('processes', [1, 2, 4, 5, 6, 8])
@pytest.mark.parametrize('name, batch', [('full_referit', 320), ('ssa_referit', 384)])
def test_the_global_batch_is_the_official_one(rows, processes, name, batch):
    row = rows('--processes', f'{processes}', '--launcher', 'pytorch')[name]
    if batch % processes:
        with pytest.raises(ValueError, match=rf'{processes}.*{name}.*{batch}'):
            row.cfg_options()
        return
    given = dict(word.split('=') for word in row.cfg_options())
    own = int(given['train_dataloader.batch_size'])
    parts = int(given['optim_wrapper.accumulative_counts'])
    assert own * parts * processes == batch and own <= 64


def test_the_recipe_is_what_the_config_has_then(rows):
    cfg = rows()['full_flickr30k'].load()
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].T_max == 120
    steps = cfg.train_dataloader.dataset.pipeline
    assert [s.official for s in steps[2].transforms[1] if 'official' in s] == [True]
    cfg = rows('--cfg-options', 'train_cfg.max_epochs=7')['ssa_flickr30k'].load()
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].T_max) == (7, 110)


def test_all_that_is_missing_is_named_at_once_after_the_plan(tmp_path):
    (tmp_path / 'coco/train2014').mkdir(parents=True)  # empty
    done = tool(
        *(SCRIPT, '--dry-run', '--only', 'full_refcoco', 'msa_referit'),
        *('released_ssa_flickr30k', '--data-root', tmp_path),
        *('--checkpoints', tmp_path / 'weights', '--work-dir', tmp_path / 'work'),
        check=False,
    )
    assert done.returncode
    # RefCOCO's published number of training labels.
    assert f'{120_624 * 120 // 320:,} steps' in done.stdout
    assert f'{120_624 * 120 / 252.57 / 3600:.1f} GPU-hours' in done.stdout
    # 3 measurers; for each of 3 sources 2 other measurers, and 3 to 7 thresholds.
    assert f'{3 + 3 * 5} to {3 + 3 * 9} training runs' in done.stdout
    names = {
        *('coco/train2014', 'coco/refcoco/instances.json', 'coco/refcoco/refs(unc).p'),
        *(f'referit/pseudo/{s}.jsonl' for s in ('template', 'relation', 'caption')),
        *('referit/referit_val.pth', 'referit/referit_test.pth', 'referit/images'),
        *('flickr30k/flickr_test.pth', 'flickr30k/flickr30k-images'),
        'weights/ssa/flickr/best_checkpoint.pth',
    }
    lines = [line.strip() for line in done.stderr.splitlines()]
    assert {f'{tmp_path / name}' for name in names} == {
        line for line in lines if line.startswith(f'{tmp_path}')
    }
    links = [line for line in lines if line.startswith('from http')]
    assert len(links) == 6 and all(link.endswith(':') for link in links)
    assert not (tmp_path / 'work').exists()


def test_missing_images_are_named_where_all_files_are_there(data, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(data, root)
    (root / 'coco/train2014/COCO_train2014_000000000001.jpg').unlink()
    (root / 'coco/train2014/COCO_train2014_000000000003.jpg').unlink()
    options = ['--dry-run', '--data-root', root, '--work-dir', tmp_path / 'work']
    done = tool(SCRIPT, *options, '--only', 'full_refcoco', check=False)
    assert done.returncode
    for number, split in ((1, 'training'), (3, 'validation')):
        assert f'{number:012d}.jpg' in done.stderr, split
    # RefCOCO's validation image is one that RefCOCOg trains on.
    done = tool(SCRIPT, *options, '--only', 'full_refcocog_google', check=False)
    assert 'refs(google).p' in done.stderr  # files come first


def test_weights_that_would_be_downloaded_are_told(data, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'empty'))
    options = ['--dry-run', '--data-root', data, '--only', 'full_refcoco']
    options += ['--work-dir', tmp_path]
    done = tool(SCRIPT, *options)
    assert 'openai' in done.stdout and 'pretrained=FILE' in done.stdout
    file = tmp_path / 'ViT-B-16.pt'
    file.touch()
    done = tool(
        *(SCRIPT, *options, '--cfg-options', f'model.visual_encoder.pretrained={file}')
    )
    assert 'openai' not in done.stdout


@pytest.mark.slow
def test_a_smoke_run_needs_no_data(tmp_path):
    options = ['--only', 'full_refcoco', '--smoke', 'shapes', '--work-dir', tmp_path]
    tool(SCRIPT, *options, '--cfg-options', *LOADERS)
    found = table(tmp_path / 'smoke')
    assert [split for _, split in found] == ['val', 'testA', 'testB']
    assert all(cells[0] for cells in found.values())


def test_an_unknown_row_is_refused(rows):
    with pytest.raises(ValueError, match=r'nothing.*full_refcoco'):
        rows('--only', 'nothing')


def test_the_table_has_what_is_finished(tmp_path):
    folder = tmp_path / 'full_refcocog_umd'
    folder.mkdir()
    metrics = {'grounding/val/acc_0.5': 0.0, 'grounding/test/acc_0.5': 0.75}
    (folder / 'result.json').write_text(json.dumps(metrics))
    tool(SCRIPT, '--table', '--only', 'full_refcocog_*', '--work-dir', tmp_path)
    assert table(tmp_path) == {
        ('full_refcocog_google', 'val'): ['', '72.64', '', 'Table I'],
        ('full_refcocog_umd', 'val'): ['0.00', '73.18', '-73.18', 'Table I'],
        ('full_refcocog_umd', 'test'): ['75.00', '72.54', '+2.46', 'Table I'],
    }


def table(work_dir):
    lines = (work_dir / 'table.md').read_text().splitlines()[2:]
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return {(row, split): rest for row, split, *rest in cells}


@pytest.mark.slow
def test_rows_run_to_their_table_and_resume(data, tmp_path):
    """A supervised row, SSA, and the supervised weights in the official layout."""
    command = [sys.executable, SCRIPT, '--work-dir', tmp_path, '--data-root', data]
    command += ['--checkpoints', tmp_path / 'weights', '--smoke', 'tiny']
    # The model also of the row of released weights, which are tiny here.
    command += ['--cfg-options', *SHORT, *load(SCRIPT).TINY, '--only']
    weights = tmp_path / 'weights/full/referit/best_checkpoint.pth'
    tmp_path /= 'smoke'
    done = run(*command, 'full_referit', 'ssa_refcoco', timeout=3600)
    # 6 labels: the measurer and at most 7 trials, of one epoch in batches of 2.
    assert f'at most {6 * 8 // 2} steps' in done.stdout
    found = table(tmp_path)
    assert [split for _, split in found] == ['test', 'val', 'testA', 'testB']
    record = json.loads((tmp_path / 'ssa_refcoco/search/curriculum.json').read_text())
    assert float(found['ssa_refcoco', 'val'][0]) == pytest.approx(
        100 * record['final']['score'], abs=0.01
    )
    assert len(record['trials']) >= 3
    weights.parent.mkdir(parents=True)
    converter = 'tools/model_converters/official_clip_vg.py'
    tool(converter, tmp_path / 'full_referit/train', weights, '--reverse')
    times = {path: path.stat().st_mtime for path in tmp_path.rglob('*.pth')}
    names = ('full_referit', 'ssa_refcoco', 'released_full_referit')
    run(*command, *names, timeout=3600)
    again = table(tmp_path)
    first, same = (
        json.loads((tmp_path / name / 'result.json').read_text())
        for name in ('full_referit', 'released_full_referit')
    )
    # Every box is near the middle: accuracy tells nothing, the mean IoU does.
    assert same['grounding/miou'] == pytest.approx(first['grounding/miou'], abs=1e-6)
    assert again['released_full_referit', 'test'] == found['full_referit', 'test']
    assert found.items() <= again.items()
    assert times == {path: path.stat().st_mtime for path in times}
    # A row that was begun with other options is not continued by these.
    other = ('--cfg-options', 'randomness.seed=1')
    done = run(*command, 'full_referit', *other, check=False)
    assert done.returncode and f'{tmp_path / "full_referit"}' in done.stderr
