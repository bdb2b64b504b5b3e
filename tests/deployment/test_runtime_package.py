"""The core alone as a package, in an environment that has nothing else."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from projects.clip_vg.apis import GroundingInferencer

from ..helpers import ROOT

pytest.importorskip('onnxscript')
pytestmark = pytest.mark.slow
MOST_MB = 300


def run(*command, cwd):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves files beside its sources."""
    copy = tmp_path_factory.mktemp('sources')
    for name in ('runtime_package', 'projects'):
        shutil.copytree(ROOT / name, copy / name)
    options = ('--no-deps', '--no-build-isolation', '-w', copy / 'dist')
    pip = (sys.executable, '-m', 'pip', 'wheel')
    run(*pip, *options, copy / 'runtime_package', cwd=copy)
    (built,) = (copy / 'dist').iterdir()
    return built


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_it_predicts_where_nothing_else_is_installed(
    wheel, variant_folder, shapes, tmp_path, backend
):
    venv = tmp_path / 'venv'
    run(sys.executable, '-m', 'venv', '--without-pip', venv, cwd=tmp_path)
    python = venv / 'bin' / 'python'
    run(
        *(sys.executable, '-m', 'pip', '--python', python, 'install', '-q'),
        *('-c', ROOT / 'constraints.txt', f'{wheel}[{backend},serve]'),
        cwd=tmp_path,
    )
    (site,) = venv.glob('lib/python*/site-packages')
    size = sum(path.stat().st_size for path in site.rglob('*') if path.is_file()) / 1e6
    installed = sorted(path.stem for path in site.glob('*.dist-info'))
    sys.stdout.write(f'{backend}: {size:.0f} MB of {", ".join(installed)}\n')
    assert size < MOST_MB
    assert not {'torch', 'mmengine', 'mmdet', 'scipy', 'pandas'} & {
        path.name for path in site.iterdir()
    }
    image = next((shapes / 'images').glob('*.jpg'))
    texts = ['red circle', 'schön &amp; 😀!~', 'star on the left']
    command = (python, '-m', 'projects.clip_vg_core.runtime', variant_folder)
    said = run(*command, image, *texts, '--backend', backend, cwd=tmp_path)
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line['expression'] for line in lines] == texts
    infer = GroundingInferencer(variant_folder, backend=backend)
    (expected,) = infer(image, texts)['predictions']
    for key, name in (('boxes', 'bboxes'), ('scores', 'scores')):
        found = [value for line in lines for value in line[key]]
        np.testing.assert_allclose(found, expected[name], atol=0.01)
    served = 'from projects.clip_vg_core.runtime import server as s; '
    served += f'i = s.ExportedInferencer({str(variant_folder)!r}); '
    served += 's.make_app(s.GroundingService(i, s.ServerOptions())); import uvicorn'
    run(python, '-c', served, cwd=tmp_path)
