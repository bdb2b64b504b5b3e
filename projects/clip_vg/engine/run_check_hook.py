"""What every run checks and logs before its first step."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmdet.registry import DATASETS, HOOKS
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from projects.clip_vg_core.data.label_table import LabelTable, PackedStrings
from projects.clip_vg_core.data.leaks import describe_leaks, leaking_labels

from ..checkpoints.strict_loading import refuse_other_weights
from ..evaluation.grounding_metric import current_name
from ..evaluation.joined_metric import JoinedMetric

__all__ = [
    'RunCheckHook',
    'check_run',
    'describe_data',
    'find_leaks',
    'refuse_late_boxes',
    'refuse_no_steps',
    'refuse_unknown_best',
]

# Of a CheckpointHook with several `save_best`.
_BEST = ('best_score_', 'best_ckpt_')


def describe_data(dataset: Any) -> str:
    """How many labels and images a data set has, for each of its splits.

    Args:
        dataset (Any): A :obj:`RefExpDataset`, or any other with a length.

    Returns:
        str: ``train: 42,404 labels of 16,994 images; ...``, or the number of samples
        of a data set without a table of labels.
    """
    table = getattr(dataset, 'table', None)
    if table is None:
        return f'{len(dataset):,} samples'
    parts = []
    for number, name in enumerate(table.split_names):
        images = table.image_index[table.splits == number]
        if len(images):
            count = len(np.unique(images))
            parts.append(f'{name}: {len(images):,} labels of {count:,} images')
    return '; '.join(parts)


def refuse_no_steps(loop: Any) -> None:
    """Refuse a training run that would make no step.

    Args:
        loop (BaseLoop): The training loop. One that counts iterations passes with an
            endless sampler, which fills a batch from any number of samples.

    Raises:
        ValueError: With the number of samples, the batch size, and what to set.
    """
    loader = loop.dataloader
    # A loader that was given a batch sampler knows no batch size of its own.
    batches = loader if loader.batch_size else loader.batch_sampler
    sampler = getattr(batches, 'sampler', loader.sampler)
    if not len(loader) and not isinstance(sampler, InfiniteSampler):
        batch, drop = (
            getattr(batches, key, 'unknown') for key in ('batch_size', 'drop_last')
        )
        each = ' in each process' if get_world_size() > 1 else ''
        raise ValueError(
            f'No training step would be made: {len(sampler):,} samples{each} '
            f'({describe_data(loader.dataset)}) do not fill a batch of {batch}, with '
            f'drop_last={drop}. Set train_dataloader.batch_size to '
            f'{max(len(sampler), 1)} or less, or train_dataloader.drop_last=False.'
        )
    if loop.max_iters < 1:
        raise ValueError(
            f'No training step would be made: train_cfg has {loop.max_epochs} epochs '
            f'and {loop.max_iters} iterations. Set train_cfg.max_epochs (or '
            'max_iters) to 1 or more.'
        )


def _innermost(dataset: Any) -> Iterator[Any]:
    """The data sets below MMEngine's and MMDetection's wrappers."""
    below = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for inner in below:
        yield from [dataset] if inner is None else _innermost(inner)


def refuse_late_boxes(dataset: Any) -> None:
    """Refuse a training pipeline that moves images and not their boxes.

    In a test pipeline the boxes are loaded last, since predictions are compared in
    pixels of the original image. To train with one gives an accuracy of 0, and no
    error.

    Args:
        dataset (Any): The training data. Samples are loaded only where a step stands
            between the image's loader and the boxes'.

    Raises:
        ValueError: A step before the boxes' loader changes the size of an image or
            may flip it; it names the steps and the image.
    """
    for inner in _innermost(dataset):
        steps = getattr(getattr(inner, 'pipeline', None), 'transforms', [])
        places = [
            i for i, step in enumerate(steps) if isinstance(step, LoadAnnotations)
        ]
        early = steps[: places[0]] if places else []
        suspects = [step for step in early if not isinstance(step, LoadImageFromFile)]
        # Of several labels, since an image may have the wanted size already.
        for index in range(min(8, len(inner))) if suspects else []:
            sample: Any = inner.get_data_info(index)
            for step in early:
                sample = step(sample) if isinstance(sample, dict) else None
            if sample is None:  # several views, or an image that is left out
                continue
            before, after = sample['ori_shape'][:2], sample['img_shape'][:2]
            # A step that may flip says whether it did, this time.
            if before != after or 'flip' in sample:
                change = (
                    f'of {before} became {after} (H, W)'
                    if before != after
                    else 'may be flipped'
                )
                raise ValueError(
                    f'The training pipeline has {type(steps[places[0]]).__name__} '
                    f'after {", ".join(type(step).__name__ for step in suspects)}: '
                    f'{sample.get("img_path")} {change}, and its boxes would stay as '
                    'in the original image. Load the boxes before the image is '
                    'changed, as train_pipeline of the configs does.'
                )


def refuse_unknown_best(runner: Runner) -> None:
    """Refuse to choose a best checkpoint by a number that validation does not give.

    MMEngine would find out after the first validation, with a ``KeyError``.

    Args:
        runner (Runner): Whose metrics of another kind may give any number.

    Raises:
        ValueError: It names ``save_best`` and what there is.
    """
    metrics = [] if runner.val_loop is None else runner.val_loop.evaluator.metrics
    if not metrics or not all(isinstance(metric, JoinedMetric) for metric in metrics):
        return
    known = [
        f'{metric.prefix}/{name}' for metric in metrics for name in metric.measures
    ]
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.save_best is None:
            continue
        for name in hook.key_indicators:
            first, last = name.partition('/')[0], name.rpartition('/')[2]
            # Of a group, such as `grounding/testA/acc_0.5`, the name is the last part.
            if name != 'auto' and f'{first}/{last}' not in known:
                raise ValueError(
                    f'default_hooks.checkpoint.save_best={name!r} is not what '
                    f'{" and ".join(type(metric).__name__ for metric in metrics)} '
                    f'computes: {", ".join(known)}. Set it to one of these, such as '
                    f'{known[0]!r}.'
                )


def find_leaks(training: Any, held_out: Mapping[str, Any]) -> Iterator[str]:
    """Look for images that are trained on and validated or tested on.

    Images are the same by their COCO number, or by their path.

    Args:
        training (Any): The training data.
        held_out (Mapping[str, Any]): Data sets by what they are for. Those that are no
            :obj:`RefExpDataset` are passed over.

    Yields:
        str: For each of ``held_out``, how many training labels and images leak.
    """
    for dataset in _innermost(training):
        if not hasattr(dataset, 'image_path'):
            continue
        table = _with_paths(dataset)
        for name, other in held_out.items():
            below = [d for d in _innermost(other) if hasattr(d, 'image_path')]
            leaking = leaking_labels(table, [_with_paths(d) for d in below])
            if len(leaking):
                yield describe_leaks(dataset.table, leaking, [name])


def _with_paths(dataset: Any) -> LabelTable:
    """The labels of a data set, whose images are named by their whole paths."""
    table = dataset.table
    paths = (str(Path(dataset.image_path(name)).absolute()) for name in table.images)
    return replace(table, images=PackedStrings.pack(paths))


def _test_data(runner: Runner) -> Any:
    """The labels of the test data, or None; the images need not be there yet."""
    loader = runner._test_dataloader
    if not isinstance(loader, dict):
        return None if loader is None else loader.dataset
    cfg = loader['dataset']
    if not isinstance(cfg, dict) or cfg.get('type') != 'RefExpDataset':
        return None
    # Before a training run, nothing but the names of the images is needed.
    keep_all = dict(invalid_boxes=False, check_boxes=False)
    changes = dict(pipeline=[], check_images='off', filter_cfg=keep_all, held_out=())
    try:
        dataset = DATASETS.build({**cfg, **changes})
        dataset.full_init()
    except (OSError, ValueError) as error:
        print_log(
            f'Training images are not compared with the test data: {error}',
            logger='current',
            level=logging.WARNING,
        )
        return None
    return dataset


def check_run(runner: Runner, strict: bool = False) -> None:
    """Give a runner the hook below, if its config does not.

    Args:
        runner (Runner): Before it runs.
        strict (bool): See :class:`RunCheckHook`. Defaults to False.
    """
    if not any(isinstance(hook, RunCheckHook) for hook in runner.hooks):
        runner.register_hook(RunCheckHook())
    for hook in runner.hooks:
        if isinstance(hook, RunCheckHook):
            hook.strict |= strict


@HOOKS.register_module()
class RunCheckHook(Hook):
    """Checks and logs of a run before its first step.

    In our schedules (``default_hooks = dict(run_check=dict(type='RunCheckHook'))``),
    and added by ``tools/train.py`` and ``tools/test.py`` to any other config.

    - The log says how many labels and images each split has.
    - A training run that would make no step is an error; so is one whose boxes are
      loaded after the image was resized (a test pipeline), or whose best checkpoint
      is chosen by a number that the validation does not compute.
    - Training images that are validation or test images are counted in a warning, or
      are an error. ``held_out`` of :obj:`RefExpDataset` drops them.
    - A metric that a config or a checkpoint names as before (``grounding/acc@0.5``)
      is understood as today's (``grounding/acc_0.5``).
    - Resumed in a work dir that was copied or moved, a training run replaces that
      one's best checkpoint.
    - Resumed from a checkpoint of another model, it is an error.

    Args:
        strict (bool): Whether a checkpoint of another model is an error where nothing
            is resumed, too, as in ``tools/test.py``. Defaults to False: MMEngine warns.
        on_leak (str): What to do about training images that are validation or test
            images: 'error', 'warn' or 'ignore'. Defaults to 'warn': splits by objects,
            as RefCOCOg's of Google, share images on purpose.
    """

    # Before other hooks complain of what follows from it.
    priority = 'HIGH'

    def __init__(self, strict: bool = False, on_leak: str = 'warn') -> None:
        if on_leak not in ('error', 'warn', 'ignore'):
            raise ValueError(
                f"on_leak={on_leak!r}; expected 'error', 'warn' or 'ignore'."
            )
        self.strict = strict
        self.on_leak = on_leak

    def before_run(self, runner: Runner) -> None:
        """Rename the metrics that hooks and schedules watch."""
        schedules = runner.param_schedulers or []
        if isinstance(schedules, dict):
            schedules = sum(schedules.values(), [])
        for watcher in [*runner.hooks, *schedules]:
            if isinstance(getattr(watcher, 'monitor', None), str):
                watcher.monitor = current_name(watcher.monitor)
            if isinstance(watcher, CheckpointHook) and watcher.save_best is not None:
                names = [current_name(name) for name in watcher.key_indicators]
                watcher.key_indicators = names
                watcher.is_better_than = {
                    current_name(name): rule
                    for name, rule in watcher.is_better_than.items()
                }

    def before_train(self, runner: Runner) -> None:
        """Refuse a training run that cannot learn, and log its data."""
        refuse_no_steps(runner.train_loop)
        refuse_late_boxes(runner.train_loop.dataloader.dataset)
        refuse_unknown_best(runner)
        self._log('training', runner.train_loop.dataloader)
        if runner.val_loop is not None:
            self._log('validation', runner.val_loop.dataloader)
        if self.on_leak != 'ignore':
            self._check_leaks(runner)

    def before_test(self, runner: Runner) -> None:
        """Log the test data."""
        self._log('test', runner.test_loop.dataloader)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the weights, rename the metrics and find the best checkpoints.

        MMEngine deletes a best checkpoint when a better one comes: in a work dir that
        was copied, it would delete the original's.
        """
        if self.strict or runner._resume:
            weights = checkpoint.get('state_dict', checkpoint)
            refuse_other_weights(weights, runner.model)
        hub = checkpoint.get('message_hub', {})
        info = hub.get('runtime_info', {})
        # Before a training run, only a config sets it.
        elsewhere = any(
            isinstance(hook, CheckpointHook) and hook.out_dir for hook in runner.hooks
        )
        for key in [] if elsewhere else list(info):
            if str(key).startswith('best_ckpt') and isinstance(info[key], str):
                info[key] = str(Path(runner.work_dir, Path(info[key]).name))
        for part in (hub.get('runtime_info', {}), hub.get('resumed_keys', {})):
            for key in [key for key in part if str(key).startswith(_BEST)]:
                part[current_name(key)] = part.pop(key)

    def _check_leaks(self, runner: Runner) -> None:
        training = runner.train_loop.dataloader.dataset
        if not any(hasattr(inner, 'image_path') for inner in _innermost(training)):
            return
        held_out = {}
        if runner.val_loop is not None:
            held_out['the validation data'] = runner.val_loop.dataloader.dataset
        if (test := _test_data(runner)) is not None:
            held_out['the test data'] = test
        leaks = '. '.join(find_leaks(training, held_out))
        if not leaks:
            return
        text = (
            f'{leaks}. Drop them from the training data by its '
            "held_out=dict(split=...) and on_leak='drop'; where they are meant, "
            "default_hooks.run_check.on_leak='ignore'."
        )
        if self.on_leak == 'error':
            raise ValueError(text)
        print_log(text, logger='current', level=logging.WARNING)

    def _log(self, name: str, loader: Any) -> None:
        print_log(f'{name} data: {describe_data(loader.dataset)}', logger='current')
