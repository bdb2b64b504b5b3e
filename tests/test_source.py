"""What sources may not have: ways to run what a file contains, tangled tests."""

import ast
import os
import subprocess
import sys
from importlib.util import resolve_name

import pytest

from .helpers import ROOT

FILES = sorted(
    path
    for folder in ('projects', 'tools', 'demo', 'benchmarks')
    for path in (ROOT / folder).rglob('*.py')
)
# Calls that unpickle or run what they are given, by the end of their dotted name.
UNSAFE = {
    *('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'dill.load', 'joblib.load'),
    *('marshal.load', 'marshal.loads', 'shelve.open', 'yaml.load', 'cloudpickle.load'),
    *('mmengine.load', 'fileio.load', 'torch.hub.load', 'jit.load', 'pd.read_pickle'),
    *('eval', 'exec', 'compile', '__import__'),
}


def calls(path):
    """Dotted names of what is called, and the calls."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_is_unpickled_or_run():
    found = [
        (path.name, name, node.lineno)
        for path in FILES
        for name, node in calls(path)
        if name in UNSAFE or any(name.endswith(f'.{unsafe}') for unsafe in UNSAFE)
        if '.' in name or name in ('eval', 'exec', 'compile', '__import__')
    ]
    # Methods of models, and PyTorch's compiler.
    harmless = ('.eval', 're.compile', 'regex.compile', 'torch.compile')
    assert not [f for f in found if not f[1].endswith(harmless)]


def test_torch_and_numpy_load_data_alone():
    loads = [
        (
            path.relative_to(ROOT).as_posix(),
            name,
            {k.arg: k.value for k in node.keywords},
        )
        for path in FILES
        for name, node in calls(path)
        if name in ('torch.load', 'np.load', 'numpy.load')
    ]
    assert loads
    for path, name, options in loads:
        if name == 'torch.load':
            assert path == 'projects/clip_vg_core/utils/safe_torch.py'
            assert ast.literal_eval(options['weights_only']) is True
        else:
            # NumPy's default as well.
            allowed = options.get('allow_pickle', ast.Constant(False))
            assert ast.literal_eval(allowed) is False, path


@pytest.mark.parametrize('seed', [0])
def test_random_pickles_do_nothing(tmp_path, seed):
    """The fuzz target, 10,000 programs of its million; see tests/fuzz_unpickling.py."""
    fuzz = ROOT / 'tests' / 'fuzz_unpickling.py'
    done = subprocess.run(
        [sys.executable, fuzz, '--programs', '10000', '--seed', str(seed)],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '10,000 programs, no violation' in done.stdout
    assert not list(tmp_path.iterdir())


def imported(path):
    """Dotted names of the modules, and of what is taken from them."""
    package = '.'.join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = '.' * node.level + (node.module or '')
            module = resolve_name(name, package) if node.level else name
            yield from (f'{module}.{alias.name}' for alias in node.names)


def test_tests_share_helpers_alone():
    files = sorted((ROOT / 'tests').rglob('*.py'))
    found = {
        path.relative_to(ROOT).as_posix(): sorted(
            name
            for name in imported(path)
            if name.startswith('tests.') and not name.startswith('tests.helpers.')
        )
        for path in files
    }
    assert len(found) > 100
    assert {path: names for path, names in found.items() if names} == {}


def test_the_core_knows_nothing_of_the_plugin():
    files = sorted((ROOT / 'projects' / 'clip_vg_core').rglob('*.py'))
    assert len(files) > 40
    for path in files:
        names = [name for name in imported(path) if name.startswith('projects.')]
        assert all(name.startswith('projects.clip_vg_core.') for name in names), path
