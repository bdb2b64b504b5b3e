"""What the scores of a model with a confidence head are worth, on synthetic images.

    python benchmarks/confidence.py configs/clip_vg_synthetic_confidence.py \
        CHECKPOINT --data-root data/synthetic --split test --out confidence.png

Every labelled expression is grounded: is the score the IoU that is reached? Then each
that names a colour or a shape is grounded with one word changed, and one of another
image in its place; by the truth of the scene both have no referent. Prints a table in
Markdown and draws reliability diagram, histograms and ROC.
"""

import argparse
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.synthetic.detections import read_shapes
from projects.clip_vg.synthetic.expressions import RELATIONS, Shape
from projects.clip_vg.synthetic.scenes import COLORS, SHAPES
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.metrics.confidence import (
    auroc,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
    roc_curve,
)
from projects.clip_vg_core.pseudo_labels.detection import iou
from projects.clip_vg_core.utils.command_line import parse_command

ONE_WORD, OTHER_IMAGE = 'one word changed', "another image's"
_RELATION = re.compile(rf' (?:{"|".join(RELATIONS)}) ')
_POSITIVE, _LINE = '#2e7d32', '#90a4ae'
_NEGATIVE = ('#c62828', '#ef6c00', '#6a1b9a')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of a model with a confidence head')
    parser.add_argument(
        'checkpoint',
        help='checkpoint file, work dir (its best checkpoint, else its last), or '
        'exported folder',
    )
    parser.add_argument(
        '--data-root',
        default='data/synthetic',
        help='folder that tools/make_synthetic.py made (default: %(default)s)',
    )
    parser.add_argument(
        '--split',
        choices=('train', 'val', 'test'),
        default='test',
        help='split to measure on (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the changed words (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        default='confidence.png',
        help='figure to write (default: %(default)s)',
    )
    return parse_command(parser, 'benchmarks/confidence.py')


@dataclass
class LabelledImage:
    """An image, its true objects and the expressions to ground in it.

    Args:
        path (Path): The file.
        objects (list[Shape]): The truth.
        texts (list[str]): The labelled expressions.
        boxes (list): Their boxes, xyxy in pixels.
        negatives (list[tuple[int, str, str]]): Expressions without a referent: the
            label each stands for, how it was made, the text.
    """

    path: Path
    objects: list[Shape]
    texts: list[str] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    negatives: list[tuple[int, str, str]] = field(default_factory=list)


def read_images(root: Path, split: str) -> list[LabelledImage]:
    """The labelled images of a split."""
    instances = root / 'shapes' / 'instances.json'
    by_file = {
        image['file_name']: LabelledImage(root / 'images' / image['file_name'], objects)
        for image, objects in read_shapes(instances)
    }
    refs = root / 'shapes' / 'refs(synthetic).p'
    for label in read_annotations(instances, refs, splits=[split]):
        by_file[label['image']].texts.append(label['text'])
        by_file[label['image']].boxes.append(tuple(label['bbox']))
    return [image for image in by_file.values() if image.texts]


def _subject(text: str) -> str:
    """What is looked for, without the object it stands beside."""
    return _RELATION.split(text)[0]


def has_no_referent(text: str, objects: Sequence[Shape]) -> bool:
    """Whether no object has the name of what is looked for.

    Args:
        text (str): An expression of a synthetic image.
        objects (Sequence[Shape]): The true objects of the image.

    Returns:
        bool: False too if the name says neither colour nor shape ("left object"):
        something in the image is meant by it.
    """
    words = set(_subject(text).split())
    named = words & {*COLORS, *SHAPES, 'big', 'small'}
    return bool(words & {*COLORS, *SHAPES}) and not any(
        named <= {item.color, item.shape, item.size} for item in objects
    )


def change_word(
    text: str, objects: Sequence[Shape], rng: np.random.Generator
) -> str | None:
    """Change one word of an expression so that it has no referent.

    Args:
        text (str): An expression of a synthetic image.
        objects (Sequence[Shape]): The true objects of the image.
        rng (np.random.Generator): Chooses the word.

    Returns:
        str, optional: With another colour or another shape; None if the expression has
        neither, or every change fits some object.
    """
    subject = _subject(text)
    rest = text.removeprefix(subject)
    words = subject.split()
    twins = [
        ' '.join([*words[:place], other, *words[place + 1 :]]) + rest
        for place, word in enumerate(words)
        for kind in (tuple(COLORS), SHAPES)
        if word in kind
        for other in kind
        if other != word
    ]
    negatives = [twin for twin in twins if has_no_referent(twin, objects)]
    return str(rng.choice(negatives)) if negatives else None


def add_negatives(images: list[LabelledImage], rng: np.random.Generator) -> None:
    """Find two expressions without a referent for each that names something."""
    everything = [text for image in images for text in image.texts]
    for image in images:
        for number, text in enumerate(image.texts):
            twin = change_word(text, image.objects, rng)
            if twin is None:
                continue
            negative = next(
                other
                for other in rng.permutation(everything)
                if has_no_referent(other, image.objects)
            )
            image.negatives.append((number, ONE_WORD, twin))
            image.negatives.append((number, OTHER_IMAGE, str(negative)))


def predict(
    images: list[LabelledImage], inferencer: GroundingInferencer
) -> Iterator[tuple[str, bool, float, float]]:
    """Predictions: kind ('label', or that of the negative), named, score, IoU."""
    predictions = inferencer(
        [image.path for image in images],
        [p.texts + [text for _, _, text in p.negatives] for p in images],
    )['predictions']
    for image, predicted in zip(images, predictions, strict=True):
        named = {number for number, _, _ in image.negatives}
        boxes, scores = predicted['bboxes'], predicted['scores']
        for number, true in enumerate(image.boxes):
            reached = iou(tuple(boxes[number]), true)
            yield 'label', number in named, scores[number], reached
        for (_, how, _), score in zip(
            image.negatives, scores[len(image.texts) :], strict=True
        ):
            yield how, True, score, 0.0


def table(
    scores: np.ndarray,
    ious: np.ndarray,
    positives: np.ndarray,
    negatives: dict[str, np.ndarray],
) -> str:
    """The figures, in Markdown."""
    coverage, risk = risk_coverage(scores, (ious >= 0.5).astype(float))
    half = 1 - risk[np.abs(coverage - 0.5).argmin()]
    rows = {
        'labelled expressions': f'{len(scores):,}',
        'accuracy at IoU 0.5': f'{(ious >= 0.5).mean():.3f}',
        'mean IoU': f'{ious.mean():.3f}',
        'mean score': f'{scores.mean():.3f}',
        'ECE of the score as an IoU, 10 bins': (
            f'{expected_calibration_error(scores, ious):.3f}'
        ),
        'correlation of score and IoU': f'{np.corrcoef(scores, ious)[0, 1]:.3f}',
        'AUROC, hit or miss': f'{auroc(scores, ious >= 0.5):.3f}',
        'accuracy of the half that scores higher': f'{half:.3f}',
        'expressions with a colour or a shape': f'{len(positives):,}',
        'their mean score': f'{positives.mean():.3f}',
    }
    for name, others in negatives.items():
        both = np.r_[positives, others]
        area = auroc(both, np.arange(len(both)) < len(positives))
        rows[f'mean score, {name}'] = f'{others.mean():.3f}'
        rows[f'AUROC, they or {name}'] = f'{area:.3f}'
    lines = ['| | |', '|---|---|']
    return '\n'.join(lines + [f'| {name} | {value} |' for name, value in rows.items()])


def draw_confidence(
    scores: np.ndarray,
    ious: np.ndarray,
    positives: np.ndarray,
    negatives: Mapping[str, np.ndarray],
) -> Figure:
    """Draw a reliability diagram, histograms and ROC curves.

    Args:
        scores (np.ndarray): Of the predictions to labelled expressions, (N, ).
        ious (np.ndarray): Their IoUs, (N, ).
        positives (np.ndarray): Scores of expressions that refer to something, which
            those of ``negatives`` are compared with, (M, ).
        negatives (Mapping[str, np.ndarray]): Scores of expressions that refer to
            nothing, by how they were made.

    Returns:
        Figure: Three panels.
    """
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.4))
    _draw_reliability(panels[0], scores, ious)
    _draw_histograms(panels[1], positives, negatives)
    _draw_rocs(panels[2], positives, negatives)
    for axes in panels:
        axes.set_xlim(0, 1)
        axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    return figure


def _draw_reliability(axes: Axes, scores: np.ndarray, ious: np.ndarray) -> None:
    bins = reliability_bins(scores, ious)
    axes.plot([0, 1], [0, 1], '--', color=_LINE)
    axes.bar(
        bins.edges[:-1],
        bins.counts / bins.counts.sum(),
        np.diff(bins.edges),
        align='edge',
        color='#cfd8dc',
        label='share of predictions',
    )
    axes.plot(bins.scores, bins.values, 'o-', color=_POSITIVE, label='mean IoU')
    error = expected_calibration_error(scores, ious)
    axes.set_title(f'{len(scores):,} labelled expressions: ECE {error:.3f}')
    axes.set_xlabel('score')
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)


def _draw_histograms(
    axes: Axes, positives: np.ndarray, negatives: Mapping[str, np.ndarray]
) -> None:
    edges = np.linspace(0, 1, 26)
    drawn = {'has a referent': positives, **negatives}
    for (name, scores), color in zip(
        drawn.items(), (_POSITIVE, *_NEGATIVE), strict=False
    ):
        shares = np.histogram(scores, edges)[0] / len(scores)
        axes.stairs(shares, edges, color=color, linewidth=1.8, label=name)
    axes.set_title('scores')
    axes.set_xlabel('score')
    axes.set_ylabel('share of predictions')
    axes.legend(frameon=False)


def _draw_rocs(
    axes: Axes, positives: np.ndarray, negatives: Mapping[str, np.ndarray]
) -> None:
    axes.plot([0, 1], [0, 1], '--', color=_LINE)
    for (name, others), color in zip(negatives.items(), _NEGATIVE, strict=False):
        scores = np.r_[positives, others]
        positive = np.arange(len(scores)) < len(positives)
        area = auroc(scores, positive)
        axes.plot(
            *roc_curve(scores, positive), color=color, label=f'{name}: AUROC {area:.3f}'
        )
    axes.set_title('has a referent, or none')
    axes.set_xlabel('expressions without a referent above the threshold')
    axes.set_ylabel('expressions with one above it')
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, loc='lower right')


def main() -> None:
    """Predict, print, draw."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    images = read_images(Path(args.data_root), args.split)
    add_negatives(images, np.random.default_rng(args.seed))
    inferencer = GroundingInferencer(
        args.checkpoint,
        args.config,
        batch_size=32,
        score_thr=0.0,  # a box for each expression, whatever is shown
    )
    if not inferencer.scored:
        raise ValueError(f'{args.config} has no confidence head: no box has a score.')
    kinds, named, scores, ious = (
        np.array(column) for column in zip(*predict(images, inferencer), strict=True)
    )
    label = kinds == 'label'
    measured = (
        scores[label],
        ious[label],
        scores[label & named],
        {how: scores[kinds == how] for how in (ONE_WORD, OTHER_IMAGE)},
    )
    logging.info('%s', table(*measured))
    figure = draw_confidence(*measured)
    figure.savefig(args.out, dpi=110)
    plt.close(figure)


if __name__ == '__main__':
    main()
