"""The rows of the curriculum benchmark that correct labels, for one seed."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from curriculum_study import Study
from curriculum_trials import TARGET
from noisy_sources import SOURCES

from projects.clip_vg_core.curriculum.correction import (
    DROPPED,
    MOVED,
    Correction,
    candidate_boxes,
    correct_labels,
)
from projects.clip_vg_core.curriculum.reliability_file import read_boxes
from projects.clip_vg_core.data.label_table import concatenate
from projects.clip_vg_core.metrics.accuracy import aligned_ious
from projects.clip_vg_core.utils.atomic import replacing

__all__ = ['Corrections']


class Corrections(Study):
    """Labels that measurers correct, beside those that are selected."""

    def votes(self, measurer: str, source: str) -> np.ndarray:
        """Boxes that a measurer predicted for a source's labels, (N, 4) xyxy."""
        return np.asarray(read_boxes(self.path(measurer, source)))

    def correct(self, voters: Mapping[str, Sequence[str]]) -> dict[str, Correction]:
        """Correction of each source by the votes of measurers.

        Candidates are the boxes that labels of any of these sources have in the image.
        """
        table = concatenate([self.tables[source] for source in voters])
        candidates, candidate_index = candidate_boxes(table.boxes, table.image_index)
        ends = np.cumsum([len(self.tables[source]) for source in voters])
        images = np.split(table.image_index, ends[:-1])
        return {
            source: correct_labels(
                self.tables[source].boxes,
                [self.votes(measurer, source) for measurer in voters[source]],
                candidates,
                index,
                candidate_index,
            )
            for source, index in zip(voters, images, strict=True)
        }

    def train_corrected(
        self, name: str, corrected: Mapping[str, Correction], score: bool
    ) -> None:
        """Train on corrected labels; predict boxes for the original ones if wanted."""
        for source, correction in corrected.items():
            self._write(f'{source}_{name}', source, correction)
        pool = [f'{source}_{name}' for source in corrected]
        scoring = dict(score=list(corrected), score_as=name) if score else {}
        self.train(name, pool, **scoring)

    def _write(self, name: str, source: str, correction: Correction) -> None:
        """Annotation file of the labels that are left, with their new boxes."""
        lines = (self.root / f'{source}.jsonl').read_text().splitlines()
        with replacing(self.root / f'{name}.jsonl') as partial, partial.open('w') as to:
            for line, box, outcome in zip(
                lines, correction.boxes.tolist(), correction.outcome, strict=True
            ):
                if outcome != DROPPED:
                    label = json.loads(line)
                    label['grounding']['regions'][0]['bbox'] = box
                    to.write(json.dumps(label) + '\n')

    def correction_row(
        self, part: str, name: str, training: str, corrected: Mapping, cost: float
    ) -> None:
        """Add a line of the table: a training run on corrected labels."""
        outcome = np.concatenate([c.outcome for c in corrected.values()])
        boxes = np.concatenate([c.boxes for c in corrected.values()])
        truth = [np.load(self.root / f'{source}.truth.npy') for source in corrected]
        right = aligned_ious(boxes, np.concatenate(truth)) >= 0.5
        at_first = np.concatenate([self.right[source] for source in corrected])
        used, moved = outcome != DROPPED, outcome == MOVED
        columns = dict(
            share=used.mean(),
            precision=right[used].mean(),
            recall=(right & used).sum() / at_first.sum(),
            moved=moved.mean(),
            moved_right=right[moved].mean() if moved.any() else None,
            cost=cost,
        )
        self.add_row(part, name, training, columns)

    def rounds(
        self,
        part: str,
        label: str,
        first: Mapping[str, Sequence[str]],
        later: Mapping[str, Sequence[str]],
        number: int = 2,
    ) -> None:
        """Rows of one correction after another, each by the model of the one before.

        Args:
            part (str): Of the table.
            label (str): Who votes.
            first (Mapping): Measurers of each source's labels in the first round.
            later (Mapping): Those that vote beside the trained model afterwards.
            number (int): Of rounds. Defaults to 2.
        """
        voters, voting, trained = first, set(), set()
        for turn in range(1, number + 1):
            name = f'{part}_{label}_{turn}'.replace(' ', '_')
            corrected = self.correct(voters)
            self.train_corrected(name, corrected, score=turn < number)
            voting |= {(who, source) for source in voters for who in voters[source]}
            trained |= {self.training_of(who) for who, _ in voting} | {name}
            # What has been predicted once is not predicted again.
            scored = sum(len(self.tables[source]) for _, source in voting)
            rounds = f'{turn} round' + 's' * (turn > 1)
            cost = self.cost(sorted(trained), scored)
            self.correction_row(
                part, f'correction, {label}, {rounds}', name, corrected, cost
            )
            if turn < number:
                voters = {source: [name, *later[source]] for source in first}

    def training_of(self, measurer: str) -> str:
        """The training run whose model a measurer is; CLIP and others have none."""
        return f'plain_{measurer}' if measurer in self.tables else measurer

    def correction(self) -> None:
        """One source, 40 % wrong: with CLIP, and with models of this source alone."""
        self.languages = [TARGET]
        self.measure(TARGET, folds=True)
        self.plain_row('correction')
        self._with_clip('correction')
        halves = {TARGET: ['fold0', 'fold1']}
        self.rounds('correction', 'without CLIP', halves, halves)
        self.oracle_row('correction', [TARGET])

    def _with_clip(self, part: str) -> None:
        """Rows of one source corrected by its model and an untrained measurer."""
        self.score_untrained('zero_shot', 'zero_shot', [TARGET])
        for label, clip in (('CLIP', 'agreement'), ('zero-shot', 'zero_shot')):
            first, later = {TARGET: [TARGET, clip]}, {TARGET: [clip]}
            self.rounds(part, f'with {label}', first, later)

    def sources(self) -> None:
        """Three sources: merged, or corrected by their models and another measurer.

        A source's model speaks its language alone, the merged one all of them, and
        zero-shot grounding all that its parser reads.
        """
        self.languages = SOURCES
        self.measure(*SOURCES)
        self.score_untrained('zero_shot', 'zero_shot_all', SOURCES)
        self.merge_row('sources')
        voters = {source: [source, 'zero_shot_all'] for source in SOURCES}
        later = {source: ['zero_shot_all'] for source in SOURCES}
        self.rounds('sources', 'own model and zero-shot', voters, later)
        voters = {source: [source, 'merged'] for source in SOURCES}
        self.rounds('sources', 'own and merged model', voters, voters, 1)
        self.oracle_row('sources', SOURCES)

    def rates(self) -> None:
        """Fewer wrong labels: what correction may lose."""
        for wrong in (0.1, 0.0):
            # As in the other parts, one in ten of the wrong is ambiguous.
            rates = dict(wrong=0.95 * wrong, ambiguous=0.1 * wrong, sloppy=0.1)
            study = Corrections(
                self.root / f'wrong_{wrong:g}',
                self.seed,
                {TARGET: rates},
                self.images,
                self.steps,
                self.submit,
                self.names,
            )
            study.few_wrong(f'{wrong:.0%} wrong')
            self.rows += study.rows

    def few_wrong(self, part: str) -> None:
        """One source: all labels, and those that are corrected."""
        self.languages = [TARGET]
        self.measure(TARGET)
        self.plain_row(part)
        self._with_clip(part)

    def verifier(self) -> None:
        """One source: a second vote that is right for a known share of the labels."""
        self.languages = [TARGET]
        self.measure(TARGET)
        self.plain_row('verifier')
        for share in (0.7, 0.8, 0.9):
            name, votes = f'verifier_{share:g}', self._simulated_votes(share)
            agreement = aligned_ious(votes, self.tables[TARGET].boxes)
            self.derive(name, TARGET, agreement, votes)
            label = f'verifier right for {share:.0%}'
            self.rounds('verifier', label, {TARGET: [TARGET, name]}, {}, 1)
        self.oracle_row('verifier', [TARGET])

    def _simulated_votes(self, accuracy: float) -> np.ndarray:
        """The box that is meant, or else another one of the image, (N, 4)."""
        table = self.tables[TARGET]
        rng = np.random.default_rng(self.seed)
        truth = np.load(self.root / f'{TARGET}.truth.npy').astype(np.float32)
        right = (rng.random(len(truth)) < accuracy) & ~np.isnan(truth).any(1)
        candidates, index = candidate_boxes(table.boxes, table.image_index)
        votes = truth.copy()
        for label in np.flatnonzero(~right):
            boxes = candidates[index == table.image_index[label]]
            others = boxes[
                aligned_ious(boxes, np.tile(truth[label], (len(boxes), 1))) < 0.5
            ]
            votes[label] = rng.choice(others) if len(others) else np.nan
        return votes
