"""The rows of the curriculum benchmark for one seed: every way to select."""

from collections.abc import Sequence

import numpy as np
from curriculum_trials import TARGET, Trials
from noisy_sources import SOURCES

from projects.clip_vg.self_paced.trials import trial_name
from projects.clip_vg_core.curriculum.search import (
    Pick,
    Strategy,
    Trial,
    fixed,
    full_grid,
    greedy_walk,
    rank_measurers,
)
from projects.clip_vg_core.curriculum.selection import otsu_valley
from projects.clip_vg_core.data.label_files import in_folds
from projects.clip_vg_core.metrics.confidence import auroc

__all__ = ['Study']


class Study(Trials):
    """Questions that the training runs of a seed decide; see :class:`Trials`."""

    # The walk takes twice the training runs: ``--greedy-msa`` adds it.
    msa_searches = {'h = 0.5': fixed}

    def measure(self, *sources: str, folds: bool = False) -> None:
        """Train a measurer on each source, have CLIP score the target; once each."""
        trajectory = dict(
            type='PseudoLabelReliabilityHook',
            begin=4,
            interval=2,
            threshold=-1.0,
            min_share=1.0,
            out_dir=str(self.root / 'reliability'),
            name='trajectory',
            batch_size=64,
        )
        futures = {}
        for source in sources:
            futures[f'plain_{source}'] = self.start(
                f'plain_{source}',
                [source],
                hooks=[trajectory] if source == TARGET and len(self.right) > 1 else [],
                score=list(self.right),
                score_as=source,
            )
        for fold in (0, 1) if folds else ():
            futures[f'fold{fold}'] = self.start(
                f'fold{fold}',
                [TARGET],
                image_folds=dict(number=2, keep=[fold]),
                score=[TARGET],
                score_as=f'fold{fold}',
            )
        self.score_untrained('agreement', 'agreement', [TARGET])
        for name, future in futures.items():
            self._keep(name, future)
        for source in sources:
            self.derive('oracle', source, self.right[source].astype(np.float32))

    def score_untrained(self, measurer: str, name: str, pool: Sequence[str]) -> None:
        """Have CLIP score labels: ``agreement``, its crops, or ``zero_shot``."""
        task = dict(task='score_untrained', measurer=measurer, score_as=name)
        self.start(name, pool, **task).result()

    def all_measurers(self) -> None:
        """Every measurer, and what is computed of them."""
        self.measure(*SOURCES, folds=True)
        self.score_untrained('agreement', 'agreement_all', SOURCES)
        halves = [self.reliability(f'fold{fold}', TARGET) for fold in (0, 1)]
        in_first = np.isin(
            np.arange(len(halves[0])), in_folds(self.tables[TARGET], 2, [0])
        )
        self.derive('oof', TARGET, np.where(in_first, halves[1], halves[0]))
        for source in SOURCES:
            by_all = [self.reliability(m, source) for m in SOURCES]
            self.derive('mean', source, np.mean(by_all, 0))
            others = [self.reliability(m, source) for m in SOURCES if m != source]
            self.derive('cross', source, np.mean(others, 0))

    def _trial_row(
        self,
        part: str,
        name: str,
        trial: Trial,
        cost: float,
        values: np.ndarray | None = None,
    ) -> None:
        training, kept = trial_name(trial), self._kept(trial)
        self.row(part, name, training, kept, cost, values)

    def _single(
        self, name: str, measurer: str, threshold: float, before: list, scored: int
    ) -> None:
        """A row of one training at a threshold that needs no search."""
        trial = (Pick(TARGET, measurer, round(threshold, 3)),)
        self.evaluate([trial])
        cost = self.cost([trial_name(trial), *before], scored * len(self.right[TARGET]))
        values = self.reliability(measurer, TARGET)
        self._trial_row('single', name, trial, cost, values)

    def selection_rows(self, part: str) -> None:
        """One source: without selection, at random, and the paper's ways."""
        self.languages = [TARGET]
        self.plain_row(part)
        count, size = len(self.right[TARGET]), self.half_row(part)
        subset = dict(size=size, seed=self.seed)
        self.train('random_half', [TARGET], sampler=dict(subset=subset))
        drawn = np.random.default_rng(self.seed).choice(count, size, replace=False)
        self.row(
            part,
            'random subset, as many as h = 0.5',
            'random_half',
            {TARGET: np.sort(drawn)},
            self.cost(['random_half']),
        )
        self._walk_row(part, 'greedy SSA', greedy_walk)

    def half_row(self, part: str) -> int:
        """A row of the paper's first threshold; how many labels it selects."""
        trial = self._walk_row(part, 'fixed h = 0.5', fixed)
        return len(self._kept(trial)[TARGET])

    def _walk_row(self, part: str, name: str, strategy: Strategy) -> Trial:
        result, used = self.ssa(TARGET, strategy)
        values = self.reliability(TARGET, TARGET)
        cost = self.cost([*used, f'plain_{TARGET}'], len(values))
        self._trial_row(part, name, result.trial, cost, values)
        return result.trial

    def plain_row(self, part: str) -> None:
        """A row of one training on all labels of the source."""
        everything = {TARGET: np.arange(len(self.right[TARGET]))}
        self.row(part, 'no selection', f'plain_{TARGET}', everything, 1.0)

    def oracle_row(self, part: str, sources: Sequence[str]) -> None:
        """A row of one training on the labels that are right."""
        trial = tuple(Pick(source, 'oracle', 0.5) for source in sources)
        self.evaluate([trial])
        self._trial_row(part, 'oracle', trial, self.cost([trial_name(trial)]))

    def selection(self) -> None:
        """One source, the paper's way alone."""
        self.measure(TARGET)
        self.selection_rows('selection')
        self.oracle_row('selection', [TARGET])

    def msa(self) -> None:
        """Three sources, the paper's way alone."""
        self.languages = SOURCES
        self.measure(*SOURCES)
        self.merge_row('msa')
        self.msa_rows('msa')
        self.oracle_row('msa', SOURCES)

    def single(self) -> None:
        """One source, every way to select; what counts is its own language."""
        self.all_measurers()
        self.selection_rows('single')
        by_clip, in_clip = self.ssa(TARGET, greedy_walk, 'agreement')
        values = self.reliability('agreement', TARGET)
        cost = self.cost(in_clip, len(values))
        name = 'greedy SSA by agreement'
        self._trial_row('single', name, by_clip.trial, cost, values)
        self._label_free(f'plain_{TARGET}')
        self.oracle_row('single', [TARGET])

    def grid(self) -> None:
        """Every threshold: what a walk may miss."""
        self.all_measurers()
        self.languages = [TARGET]
        self._walk_row('single', 'full grid', full_grid)

    def measures(self) -> None:
        """How well each measure tells right labels from wrong ones."""
        self.all_measurers()
        known = ('oracle', 'fold0', 'fold1')
        for path in sorted((self.root / 'reliability').glob('*.npy')):
            name, _, source = path.stem.partition('__')
            if source in SOURCES and name not in known:
                values = self.reliability(name, source)
                name += f' on {source}' * (source != TARGET)
                area = auroc(values, self.right[source])
                self.rows.append(dict(part='measures', name=name, auroc=area))

    def _label_free(self, plain: str) -> None:
        """Thresholds without labelled val, other measures, and one training."""
        values = self.reliability(TARGET, TARGET)
        for name, measurer, before, scored in (
            ('valley of SR', TARGET, [plain], 1),
            ('valley of CR', 'cross', ['plain_relation', 'plain_caption'], 2),
            ('out-of-fold SR, valley', 'oof', ['fold0', 'fold1'], 1),
            ('trajectory mean, valley', 'trajectory', [plain], 3),
            ('agreement, valley', 'agreement', [], 1),
        ):
            valley = otsu_valley(self.reliability(measurer, TARGET)).threshold
            self._single(name, measurer, valley, before, scored)
        for begin in (4, 6):
            self._online([TARGET], 'single', range(begin, 7, 2))
            self._oracle_from(begin)
        self._online([TARGET], 'single', range(6, 7), 'agreement')
        valley = round(otsu_valley(values).threshold, 3)
        trial = (Pick(TARGET, TARGET, valley),)
        self.train(
            'continued',
            [TARGET],
            sampler=self.sampler(trial),
            load_from=self.weights(plain),
            epochs=3,
            score=[TARGET],
            score_as='continued',
        )
        self.row(
            'single',
            'valley of SR, training continued',
            'continued',
            self._kept(trial),
            self.cost(['continued', plain], len(values)),
            self.reliability('continued', TARGET),
        )

    def _online(
        self, pool: Sequence[str], part: str, after: range, prior: str | None = None
    ) -> None:
        """One training of 10 epochs that selects by valleys after some of them.

        With the agreement as a prior it begins on a selection, and the mean counts.
        """
        training = f'online_{after[0]}_{len(pool)}' + f'_{prior}' * bool(prior)
        hook = dict(
            type='PseudoLabelReliabilityHook',
            begin=after[0],
            interval=after.step,
            end=after[-1],
            threshold='otsu',
            running_mean=bool(prior),
            prior=[str(self.path(prior, source)) for source in pool] if prior else None,
            out_dir=str(self.root / 'reliability'),
            name=training,
        )
        result = self.train(training, pool, hooks=[hook])
        offset, kept, values = 0, {}, []
        chosen = np.array(result['selection'])
        for source in pool:
            end = offset + len(self.right[source])
            kept[source] = chosen[(chosen >= offset) & (chosen < end)] - offset
            values.append(self.reliability(training, source))
            offset = end
        scored = result['scored'] + offset * bool(prior)
        cost = self.cost([training], scored)
        name = f'online, valley, at {" and ".join(f"{epoch}0 %" for epoch in after)}'
        if prior:
            name = 'online from agreement, at 60 %'
        self.row(part, name, training, kept, cost, np.concatenate(values))

    def _oracle_from(self, epoch: int) -> None:
        """How far selecting during training could get at best."""
        known = str(self.path('oracle', TARGET))
        hook = dict(
            type='OracleHook', known=known, begin=epoch, end=epoch, threshold=0.5
        )
        training = f'oracle_from_{epoch}'
        self.train(training, [TARGET], hooks=[hook])
        kept = {TARGET: np.flatnonzero(self.right[TARGET])}
        name = f'online, oracle, at {epoch}0 %'
        self.row('single', name, training, kept, self.cost([training]))

    def multi(self) -> None:
        """Three sources: merged, the best of them, and MSA; all languages count."""
        self.all_measurers()
        self.languages = SOURCES
        plain = [f'plain_{source}' for source in SOURCES]
        self.merge_row('multi')
        at_half = {s: (Pick(s, s, 0.5),) for s in SOURCES}
        scores = self.evaluate(list(at_half.values()))
        best = SOURCES[int(np.argmax(scores))]
        found, used = self.ssa(best, greedy_walk)
        cost = self.cost([*used, f'plain_{best}'], len(self.right[best]))
        self._trial_row('multi', 'best single source, SSA', found.trial, cost)
        self.msa_rows('multi')
        scored = 3 * sum(map(len, self.right.values()))
        for name, measurer, before, cost in (
            ('valley of the mean of all measurers', 'mean', plain, scored),
            ('agreement, valley', 'agreement_all', [], scored // 3),
        ):
            self._multi_valley(name, measurer, before, cost)
        self._online(SOURCES, 'multi', range(6, 7))
        self._online(SOURCES, 'multi', range(6, 7), 'agreement_all')
        self.oracle_row('multi', SOURCES)

    def merge_row(self, part: str) -> None:
        """A row of one training on all labels of all sources."""
        everything = {s: np.arange(len(self.right[s])) for s in SOURCES}
        self.train('merged', SOURCES, score=SOURCES, score_as='merged')
        self.row(part, 'naive merge', 'merged', everything, self.cost(['merged']))

    def msa_rows(self, part: str) -> None:
        """The paper's way with several sources."""
        plain = [f'plain_{source}' for source in SOURCES]
        scored = 3 * sum(map(len, self.right.values()))
        for label, strategy in self.msa_searches.items():
            # Simple to complex, as the paper orders them.
            found, used = self.search(SOURCES, rank_measurers(SOURCES), strategy)
            cost = self.cost([*used, *plain], scored)
            self._trial_row(part, f'MSA, {label}', found.trial, cost)

    def _multi_valley(
        self, name: str, measurer: str, before: Sequence[str], scored: int
    ) -> None:
        """A row of one training on what lies above the valley of each source."""
        values = {source: self.reliability(measurer, source) for source in SOURCES}
        trial = tuple(
            Pick(source, measurer, round(otsu_valley(values[source]).threshold, 3))
            for source in SOURCES
        )
        self.evaluate([trial])
        cost = self.cost([trial_name(trial), *before], scored)
        every = np.concatenate(list(values.values()))
        self._trial_row('multi', name, trial, cost, every)
