"""The core starts in a moment, as it needs neither PyTorch nor MMDetection."""

import json
import subprocess
import sys

from ..helpers import ROOT

HEAVY = {'torch', 'torchvision', 'mmcv', 'mmengine', 'mmdet', 'open_clip', 'scipy'}
SCRIPT = """
import importlib, json, pathlib, sys
for path in sorted(pathlib.Path('projects/clip_vg_core').rglob('*.py')):
    importlib.import_module('.'.join(path.with_suffix('').parts))
print(json.dumps(sorted(sys.modules)))
"""


def test_all_of_it_is_imported_without_what_is_heavy():
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert 'projects.clip_vg_core.data.readers.coco' in loaded
    assert {name.split('.')[0] for name in loaded} & HEAVY == set()
    assert 'projects.clip_vg' not in loaded
