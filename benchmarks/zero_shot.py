"""Zero-shot grounding of synthetic images: accuracy, each signal, and as a measurer.

    python benchmarks/zero_shot.py --out work_dirs/zero_shot

The tiny CLIP of ``configs/zero_shot_synthetic.py``, with true boxes, simulated
detections and a grid as proposals; the AUROC of its reliability scores on noisy
sources of pseudo-labels, beside that of CLIP alone; the boxes that it assigns to texts
without boxes, and models that are trained on these; and the time of its parts. Prints
and writes one table; rerun the same command to resume.
"""

import argparse
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curriculum import DEFAULT_RATES
from label_truth import verdict_of
from machine import describe
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from noisy_sources import is_right, make_noisy_sources
from zero_shot_texts import measure_assignment, measure_training

from projects.clip_vg.engine.clip_matching import AGREEMENT_PIPELINE, AgreementScorer
from projects.clip_vg.engine.scoring import evaluation_view, plan_batches, score_labels
from projects.clip_vg.models import ZeroShotGrounding
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.detections import read_shapes, simulate_predictions
from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.metrics.confidence import auroc
from projects.clip_vg_core.pseudo_labels.generation import (
    Generation,
    MakerSettings,
    generate,
)
from projects.clip_vg_core.pseudo_labels.geometry import GeometryOptions
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.utils.atomic import replacing

CONFIG = Path(__file__).parent.parent / 'configs' / 'zero_shot_synthetic.py'
GEOMETRY = ('place', 'size', 'relation')
# The tables, and what their first columns name.
TITLES = dict(
    accuracy='proposals, signals: accuracy at IoU 0.5',
    measurer='measurer, source: AUROC',
    texts='boxes for texts, by what, kind of text: share right',
    training='labels of one number',
    time='milliseconds of an image of one thread, true boxes',
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out',
        default='work_dirs/zero_shot',
        help='output folder (default: %(default)s)',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='seeds of images and labels (default: %(default)s)',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=60,
        help='images of each measurement (default: %(default)s)',
    )
    for option, default, what in (
        ('--num-images', 600, 'training images of each training run'),
        ('--steps', 900, 'steps of one training run'),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--only',
        choices=list(TITLES),
        nargs='+',
        default=list(TITLES),
        help='tables to make (default: all)',
    )
    return parser.parse_args(argv)


def build(cfg: Config, proposals: dict[str, Any]) -> ZeroShotGrounding:
    """The model of the config with other proposals."""
    model = MODELS.build(dict(cfg.model, proposals=proposals))
    model.init_weights()
    return model.eval()


def load_samples(cfg: Config, root: Path) -> list[tuple[dict, np.ndarray]]:
    """Each image of the test split with all of its expressions, and their boxes."""
    dataset = DATASETS.build(
        dict(cfg.test_dataloader.dataset, data_root=f'{root}', split='test')
    )
    groups = ImageGroups(dataset.table.image_index, np.arange(len(dataset)), None)
    samples = []
    for labels in groups.plan(len(groups), None):
        batch = pseudo_collate([dataset[tuple(labels)]])
        samples.append((batch, dataset.table.boxes[list(labels)]))
    return samples


@torch.inference_mode()
def accuracy(
    model: ZeroShotGrounding, samples: Sequence[tuple[dict, np.ndarray]]
) -> float:
    """Share of expressions whose box has an IoU of 0.5 or more."""
    hits: list[torch.Tensor] = []
    for batch, boxes in samples:
        copied = dict(batch, data_samples=[s.clone() for s in batch['data_samples']])
        (predicted,) = model.test_step(copied)
        ious = bbox_overlaps(
            predicted.pred_instances.bboxes, torch.from_numpy(boxes), is_aligned=True
        )
        hits.append(ious >= 0.5)
    return float(torch.cat(hits).float().mean())


def ceiling(
    model: ZeroShotGrounding, samples: Sequence[tuple[dict, np.ndarray]]
) -> float:
    """Share of expressions with a proposal of an IoU of 0.5 or more."""
    hits = []
    for batch, boxes in samples:
        (found,) = model.proposals(batch['inputs'], batch['data_samples'])
        ious = bbox_overlaps(torch.from_numpy(boxes), found.boxes)
        hits.append(ious.max(1).values >= 0.5)
    return float(torch.cat(hits).float().mean())


def variants(model: ZeroShotGrounding) -> Iterator[tuple[str, Callable[[], None]]]:
    """Switches of single signals: what is off, and what does it."""
    signals, geometry = dict(model.signals), model.geometry

    def switch(changed: Mapping[str, float], **geometric: float) -> Callable[[], None]:
        def apply() -> None:
            model.signals = dict(signals, **changed)
            model.geometry = replace(geometry, **geometric)

        return apply

    yield 'all signals', switch({})
    for name, weight in signals.items():
        if weight:
            yield f'without {name}', switch({name: 0.0})
    for name in ('crop', 'blur', 'heat'):
        yield f'{name} alone', switch({**dict.fromkeys(signals, 0.0), name: 1.0})
    for name in GEOMETRY:
        yield f'without {name}', switch({}, **{name: 0.0})
    yield 'without all three', switch({}, place=0.0, size=0.0, relation=0.0)
    switch({})()


def measure_accuracy(root: Path, seed: int, images: int) -> dict[str, float]:
    """Accuracy for all proposals and variants."""
    cfg = Config.fromfile(CONFIG)
    make_synthetic(root, dict(test=images), seed=seed)
    instances = root / 'shapes' / 'instances.json'
    simulated = simulate_predictions(instances, root / 'simulated', seed=seed)
    samples = load_samples(cfg, root)
    rows = {}
    for name, proposals in (
        ('true boxes', dict(type='FileProposals', detections=f'{instances}')),
        (
            'detections',
            dict(
                type='FileProposals',
                detections=f'{simulated / "detections.json"}',
                instances=f'{instances}',
            ),
        ),
    ):
        model = build(cfg, proposals)
        rows[f'{name}, best box of all'] = ceiling(model, samples)
        for what, apply in variants(model):
            apply()
            rows[f'{name}, {what}'] = accuracy(model, samples)
    model = build(cfg, cfg.model.proposals)
    samples = samples[:20]  # hundreds of boxes each
    rows['grid, best box of all'] = ceiling(model, samples)
    rows['grid, all signals'] = accuracy(model, samples)
    return rows


class OverlapScorer(AgreementScorer):
    """Scores by the probability of boxes with an IoU of 0.5, not by the mean IoU."""

    def __call__(self, model: Any, dataset: Any, batch: Any, data: Any) -> Any:
        """Score the labels of a batch."""
        candidates = [self._candidates(dataset, sample[0]) for sample in batch]
        table, values = dataset.table, []
        images = [image.flip(0) for image in data['inputs']]
        texts = [[table.texts[label] for label in sample] for sample in batch]
        scored = model.score_boxes(images, candidates, texts)
        for sample, logits, boxes in zip(batch, scored, candidates, strict=True):
            truth = torch.from_numpy(table.boxes[list(sample)])
            near = bbox_overlaps(truth, boxes) >= 0.5
            values.append((logits.softmax(-1) * near).sum(-1))
        labels = np.array([label for sample in batch for label in sample])
        flat = torch.cat(values).clamp(0, 1).numpy()
        return labels, flat, np.zeros((len(flat), 4))


def make_geometry(root: Path, seed: int) -> np.ndarray:
    """Labels of the geometry source of simulated detections; which are right."""
    instances = root / 'pictures' / 'shapes' / 'instances.json'
    simulated = simulate_predictions(instances, root / 'simulated', seed=seed)
    out, rights = root / 'geometry.jsonl', []
    inputs = InputFiles(simulated / 'detections.json', instances)
    settings = MakerSettings('geometry', GeometryOptions(), 'geometry')
    generate(Generation(out, inputs, settings, overwrite=True))
    truth = {image['file_name']: found for image, found in read_shapes(instances)}
    sizes = {
        image['file_name']: (image['width'], image['height'])
        for image, _ in read_shapes(instances)
    }
    for label in read_annotations(out):
        name = label['image']
        verdict = verdict_of(label['text'], label['bbox'], sizes[name], truth[name])
        rights.append(verdict == 'right')
    return np.array(rights)


def measure_auroc(root: Path, seed: int, images: int) -> dict[str, float]:
    """AUROC of right labels for each source and measurer."""
    cfg = Config.fromfile(CONFIG)
    counts = dict(train=images, val=1, test=1)
    make_noisy_sources(root, counts, DEFAULT_RATES, seed)
    right = {
        source: is_right(np.load(root / f'{source}.kinds.npy'))
        for source in DEFAULT_RATES
    }
    right['geometry'] = make_geometry(root, seed)
    model = build(cfg, cfg.model.proposals)
    rows = {'share of right labels, geometry': float(right['geometry'].mean())}
    # The boxes of the geometry source are a detector's: no candidates of the others.
    for sources in (list(DEFAULT_RATES), ['geometry']):
        dataset = evaluation_view(
            DATASETS.build(
                dict(
                    type='RefExpDataset',
                    data_root=f'{root}',
                    data_prefix=dict(img='pictures/images'),
                    ann_file=[f'{source}.jsonl' for source in sources],
                    source=sources,
                )
            ),
            AGREEMENT_PIPELINE,
        )
        batches = plan_batches(dataset, 32, True, np.arange(len(dataset)))
        for name, measurer, scorer in (
            ('CLIP', model.clip, AgreementScorer(dataset)),
            ('zero-shot', model, AgreementScorer(dataset)),
            ('zero-shot by overlapping boxes', model, OverlapScorer(dataset)),
        ):
            values = np.zeros(len(dataset))
            for labels, scores, _ in score_labels(
                measurer, dataset, batches, scorer=scorer
            ):
                values[labels] = scores
            for file in dataset.label_files:
                own = values[dataset.indices_of(file)]
                rows[f'{name}, {file.source}'] = auroc(own, right[file.source])
    return rows


# What the time of an image is made of: functions of CLIP, and the rest.
PARTS = dict(
    crops='cutting crops',
    blurs='blurring',
    encode_views='visual tower, crops',
    encode_patches='visual tower, patches',
    encode_texts='text tower',
)


def measure_time(root: Path, seed: int, images: int) -> dict[str, float]:
    """Median milliseconds of an image with 7 expressions, at once and one at a time.

    Of the processor, which one thread has: what else the machine does is not counted.
    """
    cfg = Config.fromfile(CONFIG)
    make_synthetic(root, dict(test=images), seed=seed)
    instances = root / 'shapes' / 'instances.json'
    model = build(cfg, dict(type='FileProposals', detections=f'{instances}'))
    taken: Counter = Counter()

    def timed(name: str, function: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = function(*args, **kwargs)
            taken[name] += 1000 * (time.process_time() - started)
            return result

        return run

    for name, what in PARTS.items():
        setattr(model.clip, name, timed(what, getattr(model.clip, name)))
    model.test_step = timed('in all', model.test_step)
    columns: dict[str, list[float]] = {}
    for number, (batch, _) in enumerate(load_samples(cfg, root)):
        (sample,) = batch['data_samples']
        texts = (sample.text * 7)[:7]
        # In turn, so that both meet the same weather.
        for title, groups in (
            ('7 at once', [texts]),
            ('7 one at a time', [[text] for text in texts]),
        ):
            taken.clear()
            for group in groups:
                copied = sample.clone()
                copied.set_metainfo(dict(text=group))
                with torch.inference_mode():
                    model.test_step(dict(batch, data_samples=[copied]))
            taken['rest'] = 2 * taken['in all'] - taken.total()
            if number:  # the first is a warm-up
                for part in ('in all', *PARTS.values(), 'rest'):
                    columns.setdefault(f'{title}, {part}', []).append(taken[part])
    rows = {name: statistics.median(values) for name, values in columns.items()}
    rows['ratio'] = rows['7 one at a time, in all'] / rows['7 at once, in all']
    return rows


def table(rows: Sequence[Mapping[str, float]], head: str, digits: int = 3) -> str:
    """A table of means over seeds, with the standard deviation of several."""
    lines = [f'| {head} | mean over seeds |', '|---|---|']
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
        lines.append(f'| {name} | {statistics.mean(values):.{digits}f}{spread} |')
    return '\n'.join(lines)


def finished(
    path: Path, settings: Mapping[str, Any], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """What a file has of these settings, else what is measured, which it gets."""
    if path.exists():
        known = json.loads(path.read_text())
        if known['settings'] == settings:
            return known['rows']
    rows = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(dict(settings=settings, rows=rows)))
    return rows


def main() -> None:
    """Measure, print, write."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    MMLogger.get_instance('mmengine', log_level='ERROR')
    args = parse_args()
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    out, cfg, tables = Path(args.out), Config.fromfile(CONFIG), []
    measure: dict[str, Callable[[Path, int], dict[str, float]]] = dict(
        accuracy=lambda root, seed: measure_accuracy(root, seed, args.images),
        measurer=lambda root, seed: measure_auroc(root, seed, args.images),
        texts=lambda root, seed: measure_assignment(cfg, root, seed, args.images),
        training=lambda root, seed: measure_training(
            cfg, root, out / 'names', seed, args.num_images, args.steps
        ),
        time=lambda root, seed: measure_time(root, seed, args.images),
    )
    for part in args.only:
        sizes = ('num_images', 'steps') if part == 'training' else ('images',)
        settings = {name: getattr(args, name) for name in sizes}
        rows = []
        for seed in args.seeds if part != 'time' else args.seeds[:1]:
            folder = out / f'seed{seed}'
            of_seed = partial(measure[part], folder / part, seed)
            rows.append(finished(folder / f'{part}.json', settings, of_seed))
        tables.append(table(rows, TITLES[part], 1 if part == 'time' else 3))
        logging.info('%s\n', tables[-1])
    with replacing(out / 'table.md') as unfinished:
        unfinished.write_text('\n\n'.join([*tables, describe()]) + '\n')
    logging.info('%s', describe())


if __name__ == '__main__':
    main()
