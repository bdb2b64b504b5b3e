"""Commands parse before they import what takes seconds; see docs/code_layout.md."""

import argparse
import json
import subprocess
import sys

import pytest
from mmengine.config import DictAction

from .helpers import ROOT
from .helpers.pages import load

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ('tools', 'demo')
    for path in (ROOT / folder).rglob('*.py')
)
HEAVY = [
    *('torch', 'torchvision', 'mmcv', 'mmengine', 'mmdet', 'open_clip'),
    *('transformers', 'gradio', 'scipy'),
]
# Exit codes of scripts where modules cannot be imported; an error is its message.
RUN = """
import json, runpy, sys
scripts, option, heavy = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(heavy))
codes, path = {}, list(sys.path)
for script in scripts:
    sys.argv = [script, option]
    sys.path[:] = [script.rpartition('/')[0], *path]
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as end:
        codes[script] = end.code or 0
    except Exception as error:
        codes[script] = repr(error)
sys.stderr.write(json.dumps(codes))
"""


def codes(option, scripts=SCRIPTS):
    argument = json.dumps([[str(ROOT / script) for script in scripts], option, HEAVY])
    done = subprocess.run(
        [sys.executable, '-c', RUN, argument], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1]
    return list(json.loads(last).values())


@pytest.fixture(scope='module')
def helped():
    return dict(zip(SCRIPTS, codes('--help'), strict=True))


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_needs_neither_pytorch_nor_mmdetection(helped, script):
    assert helped[script] == 0


def test_a_wrong_option_is_refused_as_soon():
    scripts = [script for script in SCRIPTS if script != 'tools/run_doc.py']
    assert set(codes('--no-such-option', scripts)) == {2}


@pytest.mark.parametrize('wrong', ['lr', '--no-such-option'])
def test_a_wrong_word_after_values_for_the_config_is_refused_as_soon(wrong):
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', 'tools/train.py', 'c.py']
        + ['--cfg-options', 'a.b=1', wrong],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert wrong in lines[-1]
    imported = {line.rpartition('|')[2].strip() for line in lines}
    assert 'argparse' in imported and not imported & set(HEAVY)


def test_values_for_the_config_are_those_of_mmengines_action():
    words = ['a.b=1', 'c=[1,2.5,"x"]', 'd=(1,[2,None])', 'e=true', 'f=a=b', 'g=']
    line = ['--cfg-options', *words, '--cfg-options', 'a.b=2', 'h="[a,b]"']
    expected = argparse.ArgumentParser()
    expected.add_argument('--cfg-options', nargs='+', action=DictAction)
    train, parser = load('tools/train.py'), argparse.ArgumentParser()
    train.add_cfg_options(parser)
    options = train.read_cfg_options(parser.parse_args(line).cfg_options)
    assert options == expected.parse_args(line).cfg_options
    assert options['a.b'] == 2 and options['d'] == (1, [2, None])


# Of no use for a prediction, but imported by MMDetection and transformers.
UNUSED = ['sklearn', 'seaborn', 'pandas', 'scipy.stats', 'joblib']
LOADED = """
import runpy, sys
runpy.run_path(sys.argv[0], run_name='__main__')
sys.stderr.write(' '.join(sys.modules))
"""


def test_the_first_box_needs_no_statistics_package(tmp_path):
    arguments = ['demo/ground.py', 'demo/shapes.jpg', 'red star']
    arguments += ['--checkpoint', 'demo/clip_vg_tiny.pth', '--out-dir', str(tmp_path)]
    program = f'import sys; sys.argv = {arguments}\n{LOADED}'
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {'mmdet.models', 'open_clip'} <= loaded
    assert not loaded & set(UNUSED)


def test_a_heavy_import_before_the_parser_fails(tmp_path):
    """The check itself, on a script that does what it is against."""
    script = tmp_path / 'heavy.py'
    script.write_text('import torch\nimport argparse\nargparse.ArgumentParser()\n')
    (code,) = codes('--help', [script])
    assert 'torch' in code
