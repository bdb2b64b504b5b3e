"""Score the reliability of pseudo-labels under a model.

    python tools/score_reliability.py CONFIG CHECKPOINT --out-dir DIR
    python tools/score_reliability.py CONFIG --agreement --out-dir DIR
    python tools/score_reliability.py CONFIG --zero-shot [CONFIG] --out-dir DIR
    python tools/score_reliability.py CONFIG --measurer-file FILE --out-dir DIR

The labels are those that the config trains on. For each source, DIR gets
MEASURER__SOURCE.npy (reliability of every label), .keys.npy (the labels' keys),
.boxes.npy (predicted boxes) and .json (what they belong to). Rerun the same command to
resume an interrupted one. Several processes or machines score a shard each (--shard),
and the last one puts them together.

With --agreement nothing needs to be trained: the frozen CLIP of the config matches
crops of an image's labelled boxes with each expression. With --zero-shot, places, sizes
and relations that the expression names count as well. With --measurer-file the scores
are those of a file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train import add_common_options, load_config

from projects.clip_vg_core.curriculum.outside_scores import write_outside_scores
from projects.clip_vg_core.curriculum.reliability_file import AGREEMENT, ZERO_SHOT
from projects.clip_vg_core.data.label_files import LabelFile
from projects.clip_vg_core.utils.command_line import parse_command, run_command
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.shards import Shard, Shards, parse_shard

if TYPE_CHECKING:
    import numpy as np
    from mmengine.config import Config, ConfigDict
    from mmengine.dataset import BaseDataset
    from torch import nn


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser)
    measurer = parser.add_mutually_exclusive_group(required=True)
    measurer.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file, work dir (its best checkpoint, else its last), or '
        'exported folder of the measurer',
    )
    measurer.add_argument(
        '--agreement',
        action='store_true',
        help='score by zero-shot CLIP matching of crops and expressions (default: by '
        'the checkpoint)',
    )
    parser.add_argument(
        '--out-dir', required=True, metavar='DIR', help='folder for reliability files'
    )
    measurer.add_argument(
        '--zero-shot',
        nargs='?',
        const='',
        metavar='CONFIG',
        help='score by zero-shot grounding: CLIP, and the geometry of the boxes '
        "(default: by the checkpoint; CONFIG: CLIP and `zero_shot` of the labels')",
    )
    measurer.add_argument(
        '--measurer-file',
        type=Path,
        metavar='FILE',
        help='scores from elsewhere: CSV or JSON Lines of sample_id and probability '
        'or bbox (default: by the checkpoint)',
    )
    parser.add_argument(
        '--name',
        help="the measurer's name in the files (default: that of the checkpoint or "
        'file, agreement, or zero_shot)',
    )
    parser.add_argument(
        '--sources',
        nargs='+',
        metavar='SOURCE',
        help='sources whose labels are scored (default: all)',
    )
    parser.add_argument(
        '--report',
        action='store_true',
        help='also draw histograms, selected and dropped labels: DIR/MEASURER.html '
        '(default: no report)',
    )
    parser.add_argument(
        '--threshold',
        type=float,
        help='reliability in [0, 1] above which the report calls labels selected '
        "(default: each source's valley)",
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace scores of another checkpoint, config or transforms of this '
        'name (default: an error; changed labels are scored anew either way)',
    )
    parser.add_argument(
        '--shard',
        help='score a part of the labels, such as 2/8, or auto: as torchrun, srun or '
        'an array job numbers this process; the last one puts all together (default: '
        'all labels)',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        help="images in a batch (default: that of the config's test_dataloader)",
    )
    parser.add_argument(
        '--device',
        help='device of the measurer (default: a GPU, if there is one)',
    )
    args = parse_command(parser, 'tools/score_reliability.py')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    # Those that compare the boxes of an image's labels.
    args.compares = args.agreement or args.zero_shot is not None
    return args


def default_name(args: argparse.Namespace) -> str:
    """The measurer's name, where none is given."""
    if args.compares:
        return AGREEMENT if args.agreement else ZERO_SHOT
    return (args.measurer_file or args.checkpoint).stem


def build_measurer(
    args: argparse.Namespace, cfg: Config, dataset: BaseDataset
) -> tuple[nn.Module, dict[str, Any]]:
    """The model that scores the labels, and its entries in the manifests."""
    from mmdet.registry import MODELS
    from mmengine.runner import load_state_dict

    from projects.clip_vg.checkpoints.safe_loading import read_checkpoint
    from projects.clip_vg.checkpoints.strict_loading import refuse_other_weights
    from projects.clip_vg.checkpoints.work_dir import checkpoint_sha256
    from projects.clip_vg.engine.clip_matching import (
        agreement_config,
        agreement_measurer,
        zero_shot_config,
        zero_shot_measurer,
    )

    if args.compares:
        options = (
            agreement_config(cfg)
            if args.agreement
            else zero_shot_config(cfg, args.zero_shot or None)
        )
        describe = agreement_measurer if args.agreement else zero_shot_measurer
        measurer = describe(options, dataset.label_files)
        clip = MODELS.build(options)
        clip.init_weights()
        return clip, measurer
    exported = args.checkpoint.is_dir()  # then main() has put it into the config
    # A folder's own file says what it was exported from, wherever it lies.
    text = '' if exported else json.dumps(described(cfg.model), default=str)
    model = MODELS.build(cfg.model)
    if not exported:
        state = read_checkpoint(args.checkpoint)['state_dict']
        refuse_other_weights(state, model)
        load_state_dict(model, state)
    return model, dict(
        checkpoint=str(args.checkpoint),
        sha256=checkpoint_sha256(args.checkpoint),
        config=Path(args.config).name,
        model_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def described(model: ConfigDict) -> dict[str, Any]:
    """The config of a detector, as far as its predictions depend on it."""
    plain = model.to_dict()
    for part in ('visual_encoder', 'text_encoder'):
        if isinstance(plain.get(part), dict):
            # The checkpoint has CLIP's weights, or their sha256.
            plain[part]['pretrained'] = None
    return plain


def own_shard(args: argparse.Namespace) -> Shard:
    """The shard that the command line names; (1, 1): all."""
    if args.shard is None:
        return 1, 1
    for other, given in (
        ('--launcher, which makes one job of all processes', args.launcher != 'none'),
        ('--measurer-file, which is read in a moment', args.measurer_file is not None),
    ):
        if given:
            raise ValueError(f'--shard {args.shard} is of no use with {other}.')
    return parse_shard(args.shard)


def labels_of(
    dataset: BaseDataset, file: LabelFile
) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    """The sample_ids, keys and boxes of the labels of a file."""
    indices, table = dataset.indices_of(file), dataset.table
    keys = dataset.label_keys()[indices]
    return table.sample_ids.take(indices), keys, table.boxes[indices]


def main() -> None:
    """Score all sources, write the report."""
    args = parse_args()
    shard = own_shard(args)
    cfg = load_config(args)  # imports compat: before mmdet
    import torch
    from mmdet.registry import DATASETS
    from mmengine.dist import init_dist, is_distributed, is_main_process
    from mmengine.logging import print_log
    from mmengine.registry import init_default_scope

    from projects.clip_vg.checkpoints.work_dir import find_checkpoint
    from projects.clip_vg.datasets.samplers import is_grouped
    from projects.clip_vg.deployment.served_clip_vg import use_exported
    from projects.clip_vg.engine.clip_matching import (
        AGREEMENT_PIPELINE,
        AgreementScorer,
    )
    from projects.clip_vg.engine.scoring import (
        choose_sources,
        evaluation_view,
        score_predictions,
        score_sources,
    )
    from projects.clip_vg_core.visualization.curriculum_report import (
        write_scoring_report,
    )

    if args.device is None:
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if args.launcher != 'none' and not is_distributed():
        init_dist(args.launcher)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if args.checkpoint is not None:
        args.checkpoint = find_checkpoint(args.checkpoint)
        if args.checkpoint.is_dir():
            use_exported(cfg, args.checkpoint)
            args.device = 'cpu'
    loader = cfg.test_dataloader
    pipeline = AGREEMENT_PIPELINE if args.compares else loader.dataset.pipeline
    dataset = evaluation_view(DATASETS.build(cfg.train_dataloader.dataset), pipeline)
    files = choose_sources(dataset, args.sources)
    name = args.name or default_name(args)
    if '__' in name:
        raise ValueError(
            f'--name {name}: expected a name without "__", which separates measurer '
            'and source in the names of files.'
        )
    # Shards lock what each of them makes.
    with nullcontext() if shard[1] > 1 else lock_folder(args.out_dir):
        if args.measurer_file is not None:
            if is_main_process():
                write_outside_scores(
                    args.measurer_file,
                    {
                        file.source: labels_of(dataset, file)
                        for file in dataset.label_files
                    },
                    files,
                    args.out_dir,
                    name,
                    args.overwrite,
                )
        else:
            model, measurer = build_measurer(args, cfg, dataset)
            paths = score_sources(
                model.to(args.device).eval(),
                dataset,
                files,
                args.out_dir,
                dict(measurer, name=name),
                [dict(step) for step in pipeline],
                grouped=args.compares or is_grouped(loader.get('sampler', {})),
                batch_size=args.batch_size or loader.batch_size,
                num_workers=loader.num_workers,
                scorer=AgreementScorer(dataset) if args.compares else score_predictions,
                overwrite=args.overwrite,
                shard=shard,
            )
            args.report &= len(paths) == len(files)
        if args.report and is_main_process():
            sources = [file.source for file in files]
            # The last shards of two sources may end at the same time.
            with Shards(Path(args.out_dir, name)).lock():
                report = write_scoring_report(
                    args.out_dir, name, dataset, sources, args.threshold
                )
            print_log(str(report))


if __name__ == '__main__':
    run_command(main)
