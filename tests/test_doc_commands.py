"""The commands and snippets of the pages do what they say, or would."""

import ast
import builtins
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import mmdet.registry
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import Registry

from projects.clip_vg_core.data.readers import read_annotations

from .helpers import ROOT
from .helpers.commands import run
from .helpers.pages import EXTRAS, blocks, commands, load, scripts

SCRIPTS = list(scripts())
PYTHON = list(blocks('python'))
TARGETS = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M))


def ids(found):
    return [f'{item[0]} {Path(item[1]).name}' for item in found]


def parse(script, args, monkeypatch):
    """What the script's own parser makes of a command line."""
    if script in EXTRAS:
        pytest.importorskip(EXTRAS[script])
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools set it
    monkeypatch.setattr('sys.argv', [script, *args])
    try:
        return load(script).parse_args()
    except SystemExit as error:
        pytest.fail(f'{script} {args} ended with {error.code}')


def unwrapped(script, args):
    """The Python script that a launcher starts, with its arguments."""
    usage = re.search(r'usage: \$0 ([A-Z_ ]+)', (ROOT / script).read_text())
    names = usage[1].split()
    assert len(args) >= len(names), f'{script} takes {names}'
    given = dict(zip(names, args, strict=False))
    positional = [given[n] for n in ('CONFIG', 'CHECKPOINT') if n in given]
    tool = 'tools/test.py' if 'CHECKPOINT' in given else 'tools/train.py'
    return tool, [*positional, *args[len(names) :]]


@pytest.mark.parametrize('place, script, args', SCRIPTS, ids=ids(SCRIPTS))
def test_a_command_is_one_that_its_script_takes(
    place, script, args, monkeypatch, caplog
):
    assert (ROOT / script).is_file(), f'{place}: {script}'
    if script.endswith('.sh'):
        script, args = unwrapped(script, args)
    parsed = vars(parse(script, args, monkeypatch))
    assert not caplog.records, f'{place}: an option under its earlier name'
    config = ROOT / str(parsed.get('config'))
    if not config.is_file():  # none, or a placeholder
        return
    cfg = Config.fromfile(config)
    options = load('tools/train.py').read_cfg_options(parsed.get('cfg_options') or [])
    for key in options:
        place_of_key = cfg
        for part in key.split('.')[:-1]:
            place_of_key = (
                place_of_key[int(part)] if part.isdigit() else place_of_key[part]
            )
        assert isinstance(place_of_key, (Config, dict, list)), f'{place}: {key}'
    cfg.merge_from_dict(options)


def test_targets_of_make_exist():
    named = {
        word
        for _, words in commands()
        if words[0] == 'make'
        for word in words[1:]
        if not word.startswith('-') and '=' not in word
    }
    named |= {
        target
        for page in (ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md'))
        for target in re.findall(r'`(?:\w+=\S+ )?make ([a-z-]+)`', page.read_text())
    }
    assert named
    assert named - TARGETS == set()


def code(block):
    """A snippet; what it leaves to the reader by an ellipsis left out."""
    return re.sub(r',\s*\.\.\.', '', block.text)


def calls(tree):
    """The dicts of a snippet that say a type: its name, and their other keys."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
            given = {word.arg: word.value for word in node.keywords if word.arg}
            kind = given.pop('type', None)
            if isinstance(kind, ast.Constant):
                yield kind.value, set(given) - {'_delete_', '_scope_'}


def registered(name):
    """The class of that name in any registry, or None."""
    register_all_modules(init_default_scope=False)
    everything = vars(mmdet.registry).values()
    found = (r.get(name) for r in everything if isinstance(r, Registry))
    return next((kind for kind in found if kind is not None), None)


def missing_names(tree):
    """Names that a snippet uses and does not define."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    used = {n.id for n in names if isinstance(n.ctx, ast.Load)}
    defined = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return used - defined - set(vars(builtins))


@pytest.mark.parametrize('block', PYTHON, ids=[b.place for b in PYTHON])
def test_a_snippet_is_python_that_works(block, tmp_path):
    tree = ast.parse(code(block), block.place)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            missing = {a.name for a in node.names if not hasattr(module, a.name)}
            assert missing == set(), f'{block.place}: {node.module}'
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
    for name, options in calls(tree):
        kind = registered(name)
        assert kind is not None, f'{block.place}: no registry has {name}'
        taken = inspect.signature(kind).parameters
        if all(p.kind is not p.VAR_KEYWORD for p in taken.values()):
            assert options <= set(taken), f'{block.place}: {name}'
    if all(isinstance(statement, ast.Assign) for statement in tree.body):
        path = tmp_path / 'snippet.py'
        given = ''.join(f'{name} = []\n' for name in sorted(missing_names(tree)))
        text = re.sub(r"(_base_ = ')(?!mmdet::)", rf'\g<1>{ROOT}/', code(block))
        path.write_text(given + text)
        cfg = Config.fromfile(path, import_custom_modules=False)
        assert {node.targets[0].id for node in tree.body} - {'_base_'} <= set(cfg)


def test_the_snippet_that_links_training_images(shapes, tmp_path):
    """Of the reproduction's page, on synthetic images."""
    block = next(b for b in PYTHON if 'symlink_to' in b.text)
    root = tmp_path / 'coco'
    root.mkdir()
    for name in ('shapes', 'images'):
        (root / name).symlink_to(shapes / name)
    (root / 'refcoco').mkdir()
    text = block.text
    for theirs, ours in (
        ('data/coco', str(root)),
        ('refcoco/instances.json', 'shapes/instances.json'),
        ('refcoco/refs(unc).p', 'shapes/refs(synthetic).p'),
        ('train2014', 'images'),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    exec(compile(text, block.place, 'exec'), {})
    files = (shapes / 'shapes/instances.json', shapes / 'shapes/refs(synthetic).p')
    names = {label['image'] for label in read_annotations(*files, splits=['train'])}
    linked = list((root / 'refcoco/train_images').iterdir())
    assert {path.name for path in linked} == names
    assert all(path.read_bytes() for path in linked)


def test_three_lines_of_the_readme_lead_to_the_boxes(monkeypatch):
    """Of the model in the repository, on the image beside it."""
    block = next(
        b for b in PYTHON if b.place.startswith('README') and 'demo/' in b.text
    )
    monkeypatch.chdir(ROOT)
    names = {}
    exec(compile(block.text, block.place, 'exec'), names)
    predicted = HorizontalBoxes(names['boxes'])
    # The blue star and the triangle, from the instances.json of `make demo`.
    drawn = HorizontalBoxes([[126.5, 71.9, 342.2, 287.5], [347.6, 395.1, 463.1, 510.5]])
    assert predicted.overlaps(predicted, drawn).diagonal().min() > 0.7


# Fewer images and one epoch; the rest of the tutorial as it stands.
SHORT = {
    '--train 2000': '--train 24',
    '--val 200 --test 400': '--val 6 --test 6',
    '--strategy valley': '--strategy valley --cfg-options train_cfg.max_epochs=1 '
    'train_cfg.val_interval=1 param_scheduler.0.total_steps=1 '
    'default_hooks.checkpoint.interval=1 train_dataloader.batch_size=2',
}


@pytest.mark.slow
@pytest.mark.parametrize(
    'page, leaves',
    [
        ('../README.md', ['outputs/shapes.png', 'outputs/answers.json']),
        ('data.md', ['data/small/val.jsonl']),
        (
            'configs/synthetic.md',
            ['work_dirs/small/results.png', 'work_dirs/small/ground/answers.json'],
        ),
        (
            'tutorial_without_labels.md',
            [
                'data/photographs/pseudo/template.jsonl.html',
                'work_dirs/clip_vg_synthetic_multi_source_valley/report.html',
            ],
        ),
    ],
)
def test_the_commands_of_a_page_run_from_top_to_bottom(page, leaves, tmp_path):
    for name in ('configs', 'demo', 'projects', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / 'docs' / page).read_text()
    for long, short in SHORT.items():
        text = text.replace(long, short)
    (tmp_path / 'page.md').write_text(text)
    run(sys.executable, 'tools/run_doc.py', 'page.md', cwd=tmp_path, timeout=1800)
    for path in leaves:
        assert (tmp_path / path).stat().st_size, path
