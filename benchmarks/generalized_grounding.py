"""Expressions with no, one or several targets: five boxes with scores against one box.

    python benchmarks/generalized_grounding.py --out-dir work_dirs/generalized

Synthetic images and the tiny frozen CLIP, three seeds. A model that predicts one box
is trained on the expressions with one target, one of five boxes on all of them, for as
many steps. The threshold of scores is the one by which most expressions of the
validation split have an F1 of 1. Prints a table in Markdown; rerun the same command to
resume.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import frozen_features
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import projects.clip_vg  # noqa: F401
from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.scenes import LARGE_SIDES, SIDES
from projects.clip_vg_core.metrics.generalized import (
    MatchingRule,
    count_expression,
    summarize_sets,
)
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import parse_command

CONFIG = Path(__file__).parent / 'configs' / 'generalized.py'
SINGLE, ALL = 'shapes/refs(synthetic).p', 'shapes/grefs(synthetic).json'
# Boxes of a model, and the expressions that it is trained on.
MODELS = {'one box': (1, SINGLE), 'five boxes': (5, ALL)}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/generalized'),
        help='folder of data, checkpoints and results (default: %(default)s)',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='seeds of images and weights (default: 0 1 2)',
    )
    for option, number, what in (
        ('--num-images', 6000, 'number of training images'),
        ('--epochs', 24, 'epochs of each training run'),
        ('--batch-size', 4, 'images of a training step'),
        ('--threads', 1, "PyTorch's threads"),
    ):
        parser.add_argument(
            option, type=int, default=number, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--lr', type=float, default=1e-3, help='learning rate (default: %(default)s)'
    )
    parser.add_argument(
        '--small',
        action='store_true',
        help='objects of all sizes, as in the quickstart (default: large ones)',
    )
    return parse_command(parser, 'benchmarks/generalized_grounding.py')


def load(root: Path, cfg: Config, split: str, training: bool = False) -> list[dict]:
    """The pipeline of a split: tokens that were computed once."""
    firsts = json.loads((root / 'firsts.json').read_text())
    return [
        dict(
            type='LoadTokens',
            size=cfg.image_size,
            tokens=str(root / f'{split}.npy'),
            first=firsts[split],
            training=training,
        ),
        dict(type='PackGroundingInputs'),
    ]


def check_settings(args: argparse.Namespace) -> None:
    """Refuse to continue in a folder of other options."""
    own = {k: v for k, v in vars(args).items() if k not in ('out_dir', 'seeds')}
    path = args.out_dir / 'settings.json'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(own))
    before = json.loads(path.read_text())
    if before != own:
        raise ValueError(
            f'{path} has {before}, and this command {own}: give another --out-dir, or '
            'the same options to resume.'
        )


def prepare(root: Path, args: argparse.Namespace, seed: int) -> Config:
    """Draw the images of a seed and encode them."""
    init_default_scope('mmdet')
    counts = dict(train=args.num_images, val=300, test=500)
    make_synthetic(
        root / 'data',
        counts,
        seed,
        max_expressions=4,
        sides=SIDES if args.small else LARGE_SIDES,
        targets='any',
    )
    cfg = Config.fromfile(CONFIG)
    cfg.test_dataloader.dataset.data_root = str(root / 'data')
    bounds = np.cumsum([1, *counts.values()]).tolist()
    firsts = dict(zip(counts, bounds, strict=False))
    (root / 'firsts.json').write_text(json.dumps(firsts))
    for split in counts:
        frozen_features.precompute(cfg, root / f'{split}.npy', split)
    return cfg


def labels(root: Path, split_file: str, split: str, pipeline: list[dict]) -> dict:
    """A data set of a seed's images."""
    return dict(
        type='RefExpDataset',
        data_root=str(root / 'data'),
        ann_file='shapes/instances.json',
        split_file=split_file,
        split=split,
        data_prefix=dict(img='images/'),
        targets='one' if split_file == SINGLE else 'any',
        pipeline=pipeline,
        check_images='off',
    )


def run_config(
    root: Path, cfg: Config, name: str, args: argparse.Namespace, seed: int
) -> Config:
    """The training run of a model."""
    queries, split_file = MODELS[name]
    work_dir = root / name.replace(' ', '_')
    model = frozen_features.with_stand_ins(cfg.model.to_dict())
    if queries == 1:
        model.pop('confidence_head')
    else:
        model['num_queries'] = queries
    loader = dict(num_workers=0, persistent_workers=False)
    return Config(
        dict(
            default_scope='mmdet',
            model=model,
            work_dir=str(work_dir),
            experiment_name=f'{work_dir.name}_{seed}',
            train_dataloader=dict(
                loader,
                batch_size=args.batch_size,
                drop_last=True,
                sampler=dict(type='ImageGroupSampler', seed=seed),
                dataset=labels(
                    root, split_file, 'train', load(root, cfg, 'train', training=True)
                ),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=args.epochs),
            optim_wrapper=dict(
                optimizer=dict(cfg.optim_wrapper.optimizer, lr=args.lr),
                clip_grad=dict(max_norm=1.0),
            ),
            param_scheduler=[
                dict(
                    type='OneCycleLR',
                    eta_max=args.lr,
                    total_steps=args.epochs,
                    pct_start=0.1,
                    convert_to_iter_based=True,
                )
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=100),
                sampler_seed=dict(type='ExactResumeHook'),
                checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
            ),
            randomness=dict(seed=seed),
            resume=True,
            log_level='WARNING',
        )
    )


def train(cfg: Config) -> tuple[Path, float]:
    """Train, unless that is done; returns checkpoint and seconds."""
    done = Path(cfg.work_dir) / 'trained.json'
    if not done.exists():
        started = time.monotonic()
        Runner.from_cfg(cfg).train()
        with replacing(done) as partial:
            partial.write_text(json.dumps(time.monotonic() - started))
    checkpoint = Path(cfg.work_dir) / f'epoch_{cfg.train_cfg.max_epochs}.pth'
    return checkpoint, json.loads(done.read_text())


def predict(
    cfg: Config, checkpoint: Path, dataset: Mapping[str, Any], out: Path
) -> list[dict[str, Any]]:
    """All boxes and scores of the expressions of a split, and their targets."""
    if not out.exists():
        test = dict(
            model=cfg.model,
            default_scope='mmdet',
            work_dir=str(out.parent / 'test'),
            experiment_name=f'{cfg.experiment_name}_{out.stem}',
            test_dataloader=dict(
                batch_size=32,
                num_workers=0,
                sampler=dict(type='ImageGroupSampler', shuffle=False),
                dataset=dict(dataset, test_mode=True),
            ),
            test_cfg=dict(type='TestLoop'),
            # No box is left out by its score.
            test_evaluator=dict(
                type='GeneralizedGroundingMetric', score_thr=0.0, out_file=str(out)
            ),
            load_from=str(checkpoint),
            log_level='WARNING',
        )
        Runner.from_cfg(Config(test)).test()
    with out.open(encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def measure(
    rows: Sequence[Mapping[str, Any]], score_thr: float
) -> dict[str, dict[str, float]]:
    """Measures of the expressions with no, one and several targets, and of all."""
    rule = MatchingRule(score_thr)
    counts = [
        count_expression(
            np.array(row['bboxes']).reshape(-1, 4),
            np.array(row['scores']),
            np.array(row['gt_bboxes']).reshape(-1, 4),
            rule,
        )
        for row in rows
    ]
    groups = {
        'no target': [c for c in counts if c.targets == 0],
        'one': [c for c in counts if c.targets == 1],
        'several': [c for c in counts if c.targets > 1],
        'all': counts,
    }
    return {name: summarize_sets(group, rule) for name, group in groups.items()}


def choose_threshold(rows: Sequence[Mapping[str, Any]]) -> float:
    """The threshold by which most expressions of a split have an F1 of 1."""
    thresholds = np.arange(2, 98) / 100
    right = [measure(rows, score_thr)['all']['f1_acc'] for score_thr in thresholds]
    return float(thresholds[int(np.argmax(right))])


def accuracy(rows: Sequence[Mapping[str, Any]]) -> float:
    """Share of the expressions with one target whose highest scored box is right."""
    top = [
        dict(row, bboxes=row['bboxes'][:1], scores=[1.0])
        for row in rows
        if len(row['gt_bboxes']) == 1
    ]
    return measure(top, 0.5)['all']['f1_acc']


def run_seed(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Train and test both models on the images of a seed."""
    root = args.out_dir / f'seed{seed}'
    root.mkdir(parents=True, exist_ok=True)
    cfg = prepare(root, args, seed)
    result: dict[str, float] = {}
    for name in MODELS:
        run = run_config(root, cfg, name, args, seed)
        checkpoint, seconds = train(run)
        result[f'{name}: minutes'] = seconds / 60
        rows = {
            split: predict(
                run,
                checkpoint,
                labels(root, ALL, split, load(root, cfg, split)),
                Path(run.work_dir) / f'{split}.jsonl',
            )
            for split in ('val', 'test')
        }
        result[f'{name}: accuracy of the best box'] = accuracy(rows['test'])
        if MODELS[name][0] > 1:
            score_thr = choose_threshold(rows['val'])
            measured = measure(rows['test'], score_thr)
            result.update(
                {
                    'score threshold (validation)': score_thr,
                    'F1 = 1, several targets': measured['several']['f1_acc'],
                    'F1 = 1, one target': measured['one']['f1_acc'],
                    'F1 = 1, all': measured['all']['f1_acc'],
                    'N-acc': measured['all']['n_acc'],
                    'T-acc': measured['all']['t_acc'],
                    'AUROC': measured['all']['auroc'],
                    'instance F1': measured['all']['instance_f1'],
                }
            )
    return result


def table(results: Mapping[int, Mapping[str, float]]) -> str:
    """A column for each seed, in Markdown."""
    lines = [
        f'| test | {" | ".join(f"seed {seed}" for seed in results)} |',
        '|---' * (1 + len(results)) + '|',
    ]
    for key in next(iter(results.values())):
        cells = [f'{result[key]:.3f}' for result in results.values()]
        lines.append(f'| {key} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Train, test, print."""
    args = parse_args()
    check_settings(args)
    torch.set_num_threads(args.threads)
    results: dict[int, Mapping[str, float]] = {}
    for seed in args.seeds:
        results[seed] = run_seed(args, seed)
        text = table(results)
        with replacing(args.out_dir / 'table.md') as partial:
            partial.write_text(text + '\n')
        sys.stdout.write(f'{text}\n\n')


if __name__ == '__main__':
    main()
