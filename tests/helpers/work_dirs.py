"""What runs leave in their work dirs."""

import json


def scalars(work_dir):
    """All lines that MMEngine logged as numbers, run after run."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


def metrics(work_dir):
    """The metrics of the last test in a work dir."""
    file = max(work_dir.glob('*/*.json'), key=lambda p: p.stat().st_mtime)
    kept = json.loads(file.read_text())
    return {k: v for k, v in kept.items() if k.startswith('grounding')}


def without_seconds(value):
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != 'seconds'}
    if isinstance(value, list):
        return [without_seconds(item) for item in value]
    return value


def record_of(work_dir):
    return without_seconds(json.loads((work_dir / 'curriculum.json').read_text()))
