"""The training runs of the curriculum benchmark for one seed."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from curriculum_table import selection_quality
from curriculum_training import EPOCHS
from noisy_sources import SOURCES, is_right, make_noisy_sources

from projects.clip_vg.self_paced.trials import trial_name
from projects.clip_vg_core.curriculum.reliability_file import (
    read_reliability,
    reliability_path,
)
from projects.clip_vg_core.curriculum.search import (
    MultiSourceResult,
    Strategy,
    Trial,
    multi_source,
    rank_measurers,
)
from projects.clip_vg_core.curriculum.selection import select_reliable
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.metrics.confidence import auroc

__all__ = ['TARGET', 'Trials']

TARGET = 'template'  # the source of the single-source part
LEAST = 100  # labels that a trial needs
_OTHER_IMAGES = 1000  # added to the seed of the images that every training run knows


def _rounded(accuracy: Mapping[str, float]) -> str:
    return ' '.join(f'{value:.3f}' for value in accuracy.values())


class Trials:
    """Training runs of a seed: started once, kept, counted.

    All begin with a detector that has learnt the names of shapes on clean labels of
    other images, and nothing else.

    Args:
        root (Path): Folder of the seed.
        seed (int): Of data and training runs.
        rates (Mapping): Errors of each source.
        images (Mapping[str, int]): Images of each split.
        steps (int): Of one training.
        submit (Callable): Runs a specification elsewhere, gives a future.
        names (str, optional): Weights that all begin with. Defaults to None: trained.
    """

    def __init__(
        self,
        root: Path,
        seed: int,
        rates: Mapping[str, Mapping[str, float]],
        images: Mapping[str, int],
        steps: int,
        submit: Callable[[dict], Future],
        names: str | None = None,
    ) -> None:
        self.root, self.seed, self.steps, self.submit = root, seed, steps, submit
        self.images = images
        self.languages: Sequence[str] = SOURCES  # that accuracy is the mean of
        self.rows: list[dict] = []
        self.results: dict[str, dict] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._make_data(root, images, rates, seed)
        self.names = names or self.weights('names')
        if names is None:
            other = root / 'names'
            self._make_data(other, images, {'names': {}}, seed + _OTHER_IMAGES)
            self.train('names', ['names'], root=str(other), load_from=None)
        self.right = {
            name: is_right(np.load(root / f'{name}.kinds.npy')) for name in rates
        }
        self.tables = {name: read_annotations(root / f'{name}.jsonl') for name in rates}

    def _make_data(self, root: Path, images: Mapping[str, int], *made: Any) -> None:
        """Images, labels, and the tokens of the frozen tower."""
        make_noisy_sources(root, images, *made)
        np.savez(
            root / 'firsts.npz',
            train=1,
            val=1 + images['train'],
            test=1 + images['train'] + images['val'],
        )
        spec = dict(root=str(root), work_dir=str(root / 'trials' / 'features'))
        self.submit(dict(spec, task='precompute_tokens')).result()

    def _spec(self, name: str, pool: Sequence[str], **more: Any) -> dict:
        spec = dict(
            root=str(self.root),
            work_dir=str(self.root / 'trials' / name),
            seed=self.seed,
            steps=self.steps,
            pool=list(pool),
            load_from=self.names,
        )
        return {**spec, **more}

    def weights(self, training: str) -> str:
        """Where a finished training of full length has left its weights."""
        return str(self.root / 'trials' / training / f'epoch_{EPOCHS}.pth')

    def start(self, name: str, pool: Sequence[str], **more: Any) -> Future:
        """Have a training run."""
        return self.submit(self._spec(name, pool, **more))

    def train(self, name: str, pool: Sequence[str], **more: Any) -> dict:
        """Launch a training run and wait."""
        return self._keep(name, self.start(name, pool, **more))

    def _keep(self, name: str, future: Future) -> dict:
        result = future.result()
        self.results[name] = result
        logging.info(
            'seed %d %s: val %s test %s, %.0f s',
            *(self.seed, name, *map(_rounded, (result['val'], result['test']))),
            result['seconds'],
        )
        return result

    def accuracy(self, training: str, split: str) -> float:
        """Of a finished training: the mean over the languages that count."""
        found = self.results[training][split]
        return float(np.mean([found[language] for language in self.languages]))

    def reliability(self, measurer: str, source: str) -> np.ndarray:
        """Of a source's labels under a measurer."""
        return np.asarray(read_reliability(self.path(measurer, source)))

    def path(self, measurer: str, source: str) -> Path:
        """Of a reliability file."""
        return reliability_path(self.root / 'reliability', measurer, source)

    def derive(
        self,
        name: str,
        source: str,
        values: np.ndarray,
        boxes: np.ndarray | None = None,
    ) -> None:
        """A reliability file of computed values, and boxes if given."""
        path = self.path(name, source)
        if path.exists():
            return
        measured = next(path.parent.glob(f'*__{source}.json')).with_suffix('')
        for suffix in ('.json', '.keys.npy'):
            shutil.copy(f'{measured}{suffix}', path.with_suffix(suffix))
        if boxes is not None:
            np.save(path.with_suffix('.boxes.npy'), boxes.astype(np.float32))
        np.save(path, values.astype(np.float32))

    def sampler(self, picks: Trial) -> dict:
        """The sampler that draws from some picks."""
        return dict(
            sources={
                pick.source: dict(
                    reliability=str(self.path(pick.measurer, pick.source)),
                    threshold=pick.threshold,
                )
                for pick in picks
            }
        )

    def _kept(self, trial: Trial) -> dict[str, np.ndarray]:
        return {
            pick.source: select_reliable(
                self.reliability(pick.measurer, pick.source), pick.threshold
            )
            for pick in trial
        }

    def evaluate(self, trials: Sequence[Trial]) -> list[float]:
        """Val accuracy of trials that run side by side."""
        futures = {}
        for trial in trials:
            if sum(len(kept) for kept in self._kept(trial).values()) >= LEAST:
                pool = [pick.source for pick in trial]
                name = trial_name(trial)
                futures[trial] = self.start(name, pool, sampler=self.sampler(trial))
        scores = dict.fromkeys(trials, float('-inf'))
        for trial, future in futures.items():
            self._keep(trial_name(trial), future)
            scores[trial] = self.accuracy(trial_name(trial), 'val')
        return list(scores.values())

    def search(
        self,
        sources: Sequence[str],
        measurers: Mapping[str, Sequence[str]],
        strategy: Strategy,
    ) -> tuple[MultiSourceResult, list[str]]:
        """Search the thresholds of sources; the result, and its training runs."""
        used: dict[str, None] = {}

        def evaluate(trials: Sequence[Trial]) -> list[float]:
            used.update(dict.fromkeys(map(trial_name, trials)))
            return self.evaluate(trials)

        result = multi_source(sources, measurers, evaluate, strategy)
        if not result.trial:
            raise ValueError(
                f'No threshold keeps {LEAST} labels: the measurers have learnt nothing '
                'yet. Give more --steps.'
            )
        return result, list(used)

    def ssa(
        self, source: str, strategy: Strategy, measurer: str | None = None
    ) -> tuple[MultiSourceResult, list[str]]:
        """Search the threshold of one source, under its own measurer unless named."""
        measurers = {source: [measurer]} if measurer else rank_measurers([source])
        return self.search([source], measurers, strategy)

    def cost(self, names: Sequence[str], scored: int = 0) -> float:
        """Labels seen by training runs and scorings, in units of a plain run."""
        seen = sum(self.results[name]['seen'] for name in names if name in self.results)
        return (seen + scored) / self.results[f'plain_{TARGET}']['seen']

    def row(
        self,
        part: str,
        name: str,
        training: str,
        kept: Mapping[str, np.ndarray],
        cost: float,
        values: np.ndarray | None = None,
    ) -> None:
        """Add a line of the table: a training run on selected labels."""
        right = np.concatenate([self.right[source] for source in kept])
        offsets = np.cumsum([0] + [len(self.right[source]) for source in kept])
        chosen = [k + o for k, o in zip(kept.values(), offsets, strict=False)]
        quality = selection_quality(np.concatenate(chosen).astype(np.int64), right)
        area = None if values is None else auroc(values, right)
        self.add_row(part, name, training, dict(quality, cost=cost, auroc=area))

    def add_row(
        self, part: str, name: str, training: str, columns: Mapping[str, Any]
    ) -> None:
        """Add a line of the table."""
        self.rows.append(
            dict(
                part=part,
                name=name,
                accuracy=self.accuracy(training, 'test'),
                val=self.accuracy(training, 'val'),
                languages=self.results[training]['test'],
                **columns,
            )
        )
