"""A trial of the search: an ordinary training run, its config and what it scored."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from projects.clip_vg_core.utils.atomic import replacing

from ..checkpoints.safe_loading import load_from_local
from ..checkpoints.work_dir import last_checkpoint
from ..datasets.samplers import is_grouped

__all__ = [
    'TrialResult',
    'hold_out',
    'keep_sources',
    'read_result',
    'source_names',
    'with_online',
    'with_selection',
    'write_config',
]

# Parts of the images, and the one that validates where there are no labels to do so.
FOLDS, HELD_OUT = 10, 0


@dataclass(frozen=True)
class TrialResult:
    """What a finished training says of itself."""

    score: float
    checkpoint: str


def _lists(dataset: Mapping[str, Any]) -> dict[str, list]:
    """The settings of a data set that come once for each annotation file."""
    given = {key: dataset.get(key) for key in ('ann_file', 'split_file', 'source')}
    return {
        key: [value] if isinstance(value, str) else list(value)
        for key, value in given.items()
        if value is not None
    }


def source_names(cfg: Config, names: Sequence[str]) -> Config:
    """The config with its sources named, so that parts of it can be named too.

    Args:
        cfg (Config): Trains on a :obj:`RefExpDataset`.
        names (Sequence[str]): One for each annotation file.

    Returns:
        Config: A copy.
    """
    cfg = copy.deepcopy(cfg)
    dataset = cfg.train_dataloader.dataset
    files = _lists(dataset)['ann_file']
    if len(files) != len(names):
        raise ValueError(
            f'{len(files)} annotation files make {len(names)} sources '
            f'({", ".join(names)}): give one file for each source.'
        )
    dataset.ann_file = files
    dataset.source = list(names)
    return cfg


def keep_sources(cfg: Config, names: Sequence[str]) -> Config:
    """The config, training on some of its sources only.

    Args:
        cfg (Config): As of :func:`source_names`.
        names (Sequence[str]): Which to keep.

    Returns:
        Config: A copy.
    """
    cfg = copy.deepcopy(cfg)
    dataset = cfg.train_dataloader.dataset
    lists = _lists(dataset)
    places = [i for i, name in enumerate(lists['source']) if name in names]
    for key, values in lists.items():
        dataset[key] = [values[i] for i in places]
    return cfg


def hold_out(cfg: Config) -> Config:
    """The config, validating on pseudo-labels of images that it does not train on.

    Labels that are wrong in a way that has nothing to do with the model lower every
    model's agreement alike, so the better model still agrees more often.

    Args:
        cfg (Config): Trains on a :obj:`RefExpDataset`.

    Returns:
        Config: A copy that needs no human label.
    """
    cfg = copy.deepcopy(cfg)
    train = cfg.train_dataloader.dataset
    pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.val_dataloader.dataset = copy.deepcopy(train)
    cfg.val_dataloader.dataset.update(
        pipeline=pipeline,
        image_folds=dict(number=FOLDS, keep=[HELD_OUT]),
        test_mode=True,
    )
    rest = [part for part in range(FOLDS) if part != HELD_OUT]
    train.image_folds = dict(number=FOLDS, keep=rest)
    return cfg


def with_selection(
    cfg: Config, sources: Mapping[str, Mapping[str, Any]] | None
) -> Config:
    """The config, drawing from a selection in epochs that repeat exactly.

    Args:
        cfg (Config): Any.
        sources (Mapping, optional): As of :obj:`CurriculumSampler`; None: all labels.

    Returns:
        Config: A copy.
    """
    cfg = copy.deepcopy(cfg)
    loader = cfg.train_dataloader
    before = loader.sampler
    grouped = is_grouped(before)
    loader.sampler = dict(type='CurriculumSampler', grouped=grouped)
    for key in ('max_expressions', 'epoch_length', 'weights'):
        if before.get(key) is not None:
            loader.sampler[key] = before[key]
    if sources is not None:
        loader.sampler.sources = {name: dict(spec) for name, spec in sources.items()}
    # A resumed epoch equals an uninterrupted one; see ExactResumeHook.
    loader.persistent_workers = False
    loader.worker_init_fn = dict(type='seed_worker_by_epoch')
    cfg.default_hooks.sampler_seed = dict(type='ExactResumeHook')
    return cfg


def with_online(cfg: Config, folder: str | Path, **options: Any) -> Config:
    """The config with the hook that selects while it trains.

    Args:
        cfg (Config): As of :func:`with_selection`.
        folder (str or Path): For reliability files.
        **options: Of :obj:`PseudoLabelReliabilityHook`. Unless given, the labels are
            scored after 60 % and 80 % of the training: a model that is still
            learning its first words drops what it has not learnt yet
            (docs/benchmarks.md).

    Returns:
        Config: A copy.
    """
    cfg = copy.deepcopy(cfg)
    epochs = cfg.train_cfg.max_epochs
    begin = max(1, round(0.6 * epochs))
    hook = dict(
        type='PseudoLabelReliabilityHook',
        begin=begin,
        interval=max(1, round(0.2 * epochs)),
        end=max(begin, round(0.8 * epochs)),
        threshold='otsu',
        out_dir=str(folder),
    )
    hook.update(options)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]
    return cfg


def write_config(cfg: Config, path: Path) -> None:
    """Write a config as a file that any tool reads; all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        cfg.dump(str(partial))


def read_result(work_dir: str | Path, max_epochs: int) -> TrialResult | None:
    """What a training has reached, if it has come to its end.

    Args:
        work_dir (str or Path): Of the training.
        max_epochs (int): Of the training.

    Returns:
        TrialResult, optional: The best score and its checkpoint; None if the training
        is not finished.

    Raises:
        ValueError: It has finished without a best checkpoint.
    """
    last = last_checkpoint(work_dir)
    if last is None:
        return None
    checkpoint = load_from_local(str(last), map_location='cpu')
    if checkpoint['meta']['epoch'] < max_epochs:
        return None
    known = checkpoint['message_hub']['runtime_info']
    best = known.get('best_ckpt')
    if best is None:
        raise ValueError(
            f'{last}: the training kept no best checkpoint. Set '
            'default_hooks.checkpoint.save_best and validate at least once.'
        )
    return TrialResult(float(known['best_score']), str(Path(work_dir, Path(best).name)))
