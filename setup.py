"""Install CLIP-VG for MMDetection: ``pip install -e .``."""

import os
import sysconfig

from setuptools import find_namespace_packages, setup

# MMDetection's own tools import mmcv's compiled ops before they read a config;
# this file in site-packages lets them find the stand-in (projects/clip_vg/compat.py).
SITE_PACKAGES = os.path.relpath(
    sysconfig.get_path('purelib'), sysconfig.get_path('data')
)

with open('README.md', encoding='utf-8') as readme:
    LONG_DESCRIPTION = readme.read()

setup(
    name='clip-vg-mmdet',
    version='0.1.0',
    description='Visual grounding with CLIP in MMDetection, with and without labels',
    long_description=LONG_DESCRIPTION,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_namespace_packages(include=['projects.clip_vg*']),
    package_data={'projects.clip_vg': ['assets/*']},
    data_files=[(SITE_PACKAGES, ['clip_vg_mmcv_ops.pth'])],
    install_requires=[
        'mmdet>=3.2,<4',
        'mmengine>=0.10',
        'numpy',
        'open_clip_torch>=3.0',
        'pillow',
        'pycocotools',
        'safetensors',
        # MMEngine imports pkg_resources, which setuptools 81 removed.
        'setuptools<81',
        'torch>=2.1',
        'torchvision>=0.16',
    ],
    extras_require={
        'lite': ['mmcv-lite>=2.0.0,<2.2'],
        'dev': ['mypy', 'pre-commit', 'pytest', 'ruff'],
    },
)
