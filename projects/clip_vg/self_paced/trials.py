"""Configs of the search's training runs: changed copies of the user's config."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from projects.clip_vg_core.curriculum.search import Trial
from projects.clip_vg_core.utils.atomic import replacing

from ..datasets.samplers import is_grouped

__all__ = [
    'hold_out',
    'image_folds',
    'name_sources',
    'select_sources',
    'trial_name',
    'with_image_folds',
    'with_online',
    'with_selection',
    'write_config',
]

# Parts of the images, and the one that validates where no label of val is used.
FOLDS, HELD_OUT = 10, 0


def trial_name(trial: Trial) -> str:
    """Name of a trial that lists its picks; also the name of its folder."""
    return '+'.join(f'{p.source}_by_{p.measurer}_{p.threshold:g}' for p in trial)


def _lists(dataset: Mapping[str, Any]) -> dict[str, list]:
    """Settings of a data set that have one entry for each annotation file."""
    given = {key: dataset.get(key) for key in ('ann_file', 'split_file', 'source')}
    return {
        key: [value] if isinstance(value, str) else list(value)
        for key, value in given.items()
        if value is not None
    }


def name_sources(cfg: Config, names: Sequence[str]) -> Config:
    """Config whose sources have names, by which some of them can be selected.

    Args:
        cfg (Config): Trains on a :obj:`RefExpDataset`.
        names (Sequence[str]): One for each annotation file.

    Returns:
        Config: A copy.

    Raises:
        ValueError: Two annotation files are of one source, or one file is of two.
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


def select_sources(cfg: Config, names: Sequence[str]) -> Config:
    """Config that trains on some of its sources only.

    Args:
        cfg (Config): As of :func:`name_sources`.
        names (Sequence[str]): Names of the selected sources.

    Returns:
        Config: A copy.
    """
    cfg = copy.deepcopy(cfg)
    dataset = cfg.train_dataloader.dataset
    lists = _lists(dataset)
    selected = [i for i, name in enumerate(lists['source']) if name in names]
    for key, values in lists.items():
        dataset[key] = [values[i] for i in selected]
    return cfg


def hold_out(cfg: Config) -> Config:
    """Config that validates on pseudo-labels of images that it does not train on.

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


def image_folds(cfg: Config) -> dict[str, Any]:
    """Parts of the images that a config trains on: their number, and the ``keep`` ones.

    Args:
        cfg (Config): Trains on a :obj:`RefExpDataset`.

    Returns:
        dict: As ``image_folds`` of the data set.
    """
    own = cfg.train_dataloader.dataset.get('image_folds')
    return dict(own or dict(number=FOLDS, keep=list(range(FOLDS))))


def with_image_folds(cfg: Config, parts: Sequence[int] | None) -> Config:
    """Config that reads the labels of some parts of its images only.

    Args:
        cfg (Config): Trains on a :obj:`RefExpDataset`.
        parts (Sequence[int], optional): Parts of the images; None: as they are.

    Returns:
        Config: A copy.
    """
    cfg = copy.deepcopy(cfg)
    if parts is not None:
        folds = dict(image_folds(cfg), keep=list(parts))
        cfg.train_dataloader.dataset.image_folds = folds
    return cfg


def with_selection(
    cfg: Config,
    sources: Mapping[str, Mapping[str, Any]] | None,
    epoch_length: int | str | None = None,
) -> Config:
    """Config that draws from selected labels, in epochs that repeat exactly.

    Args:
        cfg (Config): Any.
        sources (Mapping, optional): As of :obj:`CurriculumSampler`; None: all labels.
        epoch_length (int or str, optional): Of the sampler. Defaults to None: as the
            config has it.

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
    if epoch_length is not None:
        loader.sampler.epoch_length = epoch_length
    if sources is not None:
        loader.sampler.sources = {name: dict(spec) for name, spec in sources.items()}
    # A resumed epoch equals an uninterrupted one; see ExactResumeHook.
    loader.persistent_workers = False
    loader.worker_init_fn = dict(type='seed_worker_by_epoch')
    cfg.default_hooks.sampler_seed = dict(type='ExactResumeHook')
    return cfg


def with_online(cfg: Config, folder: str | Path, **options: Any) -> Config:
    """Config with the hook that scores and selects labels during training.

    Args:
        cfg (Config): As of :func:`with_selection`.
        folder (str or Path): Folder of the reliability files.
        **options: Of :obj:`PseudoLabelReliabilityHook`. Unless given, the labels are
            scored after 60 % and 80 % of the training run: a model that is still
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
