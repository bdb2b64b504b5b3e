"""The measurers of a search: a model of each source, and what it says of all labels."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config

from projects.clip_vg_core.curriculum.reliability_file import (
    AGREEMENT,
    ReliabilityFile,
    file_sha256,
    read_boxes,
    read_reliability,
)
from projects.clip_vg_core.curriculum.search import own_first
from projects.clip_vg_core.utils.file_names import file_name

from ..engine.launch import run_jobs
from ..engine.trial import FOLDS, keep_sources, with_selection, write_config

if TYPE_CHECKING:
    from .driver import SelfPaced

__all__ = ['Measurers']


class Measurers:
    """Trains a model on all labels of each source, and scores all sources with each.

    With ``folds`` of 2 and more a measurer is as many models, each trained without a
    part of the images, which is the part that it scores. With ``agreement`` none is
    trained: CLIP alone is the measurer of all sources.

    Args:
        search (SelfPaced): Whose measurers they are.

    Raises:
        ValueError: A source has the name of CLIP's agreement, which is asked for.
    """

    def __init__(self, search: 'SelfPaced') -> None:
        self.search = search
        if search.settings.agreement and AGREEMENT in search.sources:
            raise ValueError(
                f'A source is called {AGREEMENT!r}, as what CLIP says of all sources: '
                'name it otherwise (`source` of RefExpDataset).'
            )

    @property
    def names(self) -> dict[str, list[str]]:
        """The measurers of each source; of equal ones the first wins."""
        sources = self.search.sources
        if self.search.settings.agreement:
            return dict.fromkeys(sources, [AGREEMENT])
        return own_first(sources)

    @property
    def prior(self) -> list[str] | None:
        """Reliability files that are there before any training, if any."""
        if not self.search.settings.agreement:
            return None
        path = self.search.reliability_path
        return [str(path(AGREEMENT, source)) for source in self.search.sources]

    def _image_folds(self) -> dict[str, Any]:
        """The parts of the images that the search may train on."""
        own = self.search.cfg.train_dataloader.dataset.get('image_folds')
        return dict(own or dict(number=FOLDS, keep=list(range(FOLDS))))

    def models(self) -> dict[str, tuple[str, list[int] | None]]:
        """Name of each model, its source, and the parts of the images it scores."""
        if self.search.settings.agreement:
            return {}
        folds = self.search.settings.folds
        if folds == 1:
            return {source: (source, None) for source in self.search.sources}
        parts = self._image_folds()['keep']
        return {
            f'{source}_fold{fold}': (source, parts[fold::folds])
            for source in self.search.sources
            for fold in range(folds)
        }

    def _config(self, source: str, scored: list[int] | None) -> Config:
        cfg = with_selection(keep_sources(self.search.cfg, [source]), None)
        if scored is not None:
            folds = self._image_folds()
            keep = [part for part in folds['keep'] if part not in scored]
            cfg.train_dataloader.dataset.image_folds = dict(folds, keep=keep)
        return cfg

    def _score_config(self, scored: list[int] | None) -> Config:
        cfg = copy.deepcopy(self.search.cfg)
        if scored is not None:
            folds = dict(self._image_folds(), keep=scored)
            cfg.train_dataloader.dataset.image_folds = folds
        return cfg

    def run(self) -> None:
        """Train and score what is not there yet."""
        search = self.search
        if search.settings.agreement:
            self._score(AGREEMENT, '--agreement', None, search.work_dir / 'measurers')
            return
        models = self.models()
        lines = search.train(
            {f'measurer_{name}': self._config(*how) for name, how in models.items()},
            'measurers',
        )
        for (name, (_, scored)), line in zip(models.items(), lines, strict=True):
            folder = search.work_dir / 'measurers' / file_name(f'measurer_{name}')
            self._score(name, str(search.work_dir / line['checkpoint']), scored, folder)
        if search.settings.folds > 1:
            self._join()

    def _score(
        self, name: str, how: str, scored: list[int] | None, folder: Path
    ) -> None:
        """Have a measurer score all sources, unless it has."""
        search, step = self.search, f'score_{name}'
        if step in search.journal.steps:
            return
        write_config(self._score_config(scored), folder / 'score.py')
        arguments = [
            *(str(folder / 'score.py'), how),
            *('--out', str(search.reliability_dir), f'--name={name}'),
            # A folder of its own: MMEngine would log into work_dirs.
            *('--work-dir', str(folder)),
        ]
        job = search.resources.job(
            'score_reliability.py', arguments, folder / 'score.txt'
        )
        run_jobs([job])
        search.journal.done(step)

    def _join(self) -> None:
        """One file of what the folds have scored."""
        search = self.search
        for measurer in search.sources:
            folds = [
                n for n, (source, _) in self.models().items() if source == measurer
            ]
            for source in search.sources:
                paths = [search.reliability_path(name, source) for name in folds]
                store = ReliabilityFile(
                    search.reliability_dir,
                    dict(
                        name=measurer,
                        folds=folds,
                        sha256=','.join(self._sha256(name) for name in folds),
                    ),
                    search.files[source],
                )
                for path in paths:
                    values = read_reliability(path, search.files[source])
                    scored = ~np.isnan(values)
                    boxes = read_boxes(path, search.files[source])
                    keys = search.files[source].keys
                    store.write(keys[scored], values[scored], boxes[scored])
                store.flush()

    def _sha256(self, name: str) -> str:
        line = self.search.journal.steps[f'measurer_{name}']
        return file_sha256(Path(self.search.work_dir, line['checkpoint']))

    def record(self) -> list[dict[str, Any]]:
        """What there is to say of them."""
        search = self.search
        return [
            dict(
                name=name,
                source=source,
                labels=search.files[source].count,
                **{
                    key: search.journal.steps[f'measurer_{name}'][key]
                    for key in ('score', 'checkpoint', 'seconds')
                },
            )
            for name, (source, _) in self.models().items()
            if f'measurer_{name}' in search.journal.steps
        ]
