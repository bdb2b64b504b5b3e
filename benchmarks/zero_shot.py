"""Zero-shot grounding of synthetic images: accuracy, each signal, and as a measurer.

    python benchmarks/zero_shot.py --out work_dirs/zero_shot

The tiny CLIP of ``configs/zero_shot_synthetic.py``, with true boxes, simulated
detections and a grid as proposals; and the AUROC of its reliability scores on noisy
sources of pseudo-labels, beside that of CLIP alone. Prints and writes one table.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curriculum import DEFAULT_RATES
from machine import describe
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from noisy_sources import is_right, make_noisy_sources

from projects.clip_vg.engine.clip_matching import AGREEMENT_PIPELINE, AgreementScorer
from projects.clip_vg.engine.scoring import evaluation_view, plan_batches, score_labels
from projects.clip_vg.models import ZeroShotGrounding
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.detections import simulate_predictions
from projects.clip_vg_core.data.grouping import ImageGroups
from projects.clip_vg_core.metrics.confidence import auroc
from projects.clip_vg_core.utils.atomic import replacing

CONFIG = Path(__file__).parent.parent / 'configs' / 'zero_shot_synthetic.py'
GEOMETRY = ('place', 'size', 'relation')


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


def measure_auroc(root: Path, seed: int, images: int) -> dict[str, float]:
    """AUROC of right labels for each source and measurer."""
    cfg = Config.fromfile(CONFIG)
    counts = dict(train=images, val=1, test=1)
    make_noisy_sources(root, counts, DEFAULT_RATES, seed)
    sources = list(DEFAULT_RATES)
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
    model = build(cfg, cfg.model.proposals)
    rows = {}
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
            right = is_right(np.load(root / f'{file.source}.kinds.npy'))
            own = values[dataset.indices_of(file)]
            rows[f'{name}, {file.source}'] = auroc(own, right)
    return rows


def measure_time(root: Path) -> dict[str, float]:
    """Median milliseconds of an image with seven expressions, and of one."""
    cfg = Config.fromfile(CONFIG)
    instances = root / 'shapes' / 'instances.json'
    model = build(cfg, dict(type='FileProposals', detections=f'{instances}'))
    samples = load_samples(cfg, root)[:40]
    rows = {}
    for count in (7, 1):
        taken = []
        for batch, _ in samples:
            copied = [sample.clone() for sample in batch['data_samples']]
            texts = copied[0].text * 7
            copied[0].set_metainfo(dict(text=texts[:count]))
            started = time.perf_counter()
            with torch.inference_mode():
                model.test_step(dict(batch, data_samples=copied))
            taken.append(1000 * (time.perf_counter() - started))
        rows[f'{count} expressions'] = statistics.median(taken)
    return rows


def table(rows: Sequence[Mapping[str, float]], head: str, digits: int = 3) -> str:
    """A table of means over seeds, with the standard deviation of several."""
    lines = [f'| {head} | mean over seeds |', '|---|---|']
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
        lines.append(f'| {name} | {statistics.mean(values):.{digits}f}{spread} |')
    return '\n'.join(lines)


def main() -> None:
    """Measure, print, write."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    MMLogger.get_instance('mmengine', log_level='ERROR')
    args = parse_args()
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    out = Path(args.out)
    grounded = [
        measure_accuracy(out / f'seed{seed}' / 'test', seed, args.images)
        for seed in args.seeds
    ]
    measured = [
        measure_auroc(out / f'seed{seed}' / 'sources', seed, args.images)
        for seed in args.seeds
    ]
    timed = [measure_time(out / f'seed{args.seeds[0]}' / 'test')]
    text = '\n\n'.join(
        [
            table(grounded, 'proposals, signals: accuracy at IoU 0.5'),
            table(measured, 'measurer, source: AUROC'),
            table(timed, 'milliseconds of an image, true boxes', 1),
            describe(),
        ]
    )
    with replacing(out / 'table.md') as partial:
        partial.write_text(text + '\n')
    logging.info('%s', text)


if __name__ == '__main__':
    main()
