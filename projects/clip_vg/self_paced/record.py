"""What a search leaves: the final model, and ``curriculum.json``."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from projects.clip_vg_core.curriculum.search import MultiSourceResult, Trial
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.file_names import file_name

if TYPE_CHECKING:
    from .driver import SelfPaced

__all__ = ['trial_name', 'write_record']


def trial_name(trial: Trial) -> str:
    """A folder name that says what a trial selects."""
    return '+'.join(f'{p.source}_by_{p.measurer}_{p.threshold:g}' for p in trial)


def write_record(search: 'SelfPaced', found: MultiSourceResult) -> Path:
    """Put the winner into ``final`` and everything into ``curriculum.json``.

    Args:
        search (SelfPaced): That has come to its end.
        found (MultiSourceResult): What it found.

    Returns:
        Path: ``curriculum.json``.
    """
    strategy = search.settings.strategy
    name = 'online' if strategy == 'online' else trial_name(found.trial)
    final = search.work_dir / 'final'
    final.mkdir(exist_ok=True)
    trial = search.trials[name]
    _copy(search.work_dir / trial['checkpoint'], final / 'model.pth')
    _copy(
        search.work_dir / 'trials' / file_name(name) / 'config.py', final / 'config.py'
    )
    record = dict(
        settings=asdict(search.settings),
        metric=search.cfg.default_hooks.checkpoint.save_best,
        sources=[
            dict(
                name=source,
                labels=search.files[source].count,
                **{f'mean_{search.counted}': round(search.complexity[source], 3)},
            )
            for source in search.sources
        ],
        measurers=search.measurers.record(),
        decisions=[asdict(result) for result in found.sources],
        trials=list(search.trials.values()),
        final=dict(
            trial=name,
            score=found.score,
            config='final/config.py',
            checkpoint='final/model.pth',
        ),
    )
    path = search.work_dir / 'curriculum.json'
    with replacing(path) as partial:
        partial.write_text(json.dumps(_plain(record), indent=2) + '\n')
    return path


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def _plain(value: Any) -> Any:
    """JSON's types: no infinities, no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
