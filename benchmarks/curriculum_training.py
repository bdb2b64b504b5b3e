"""One training of the curriculum benchmark: MMEngine's runner, in a worker process."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import frozen_features
import numpy as np
import torch
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import projects.clip_vg  # noqa: F401
from projects.clip_vg.engine.clip_matching import (
    AGREEMENT_PIPELINE,
    AgreementScorer,
    agreement_config,
    agreement_measurer,
    zero_shot_config,
    zero_shot_measurer,
)
from projects.clip_vg.engine.pseudo_label_reliability_hook import (
    PseudoLabelReliabilityHook,
)
from projects.clip_vg.engine.scoring import evaluation_view, score_all, score_sources
from projects.clip_vg_core.curriculum.reliability_file import (
    ReliabilityFile,
)
from projects.clip_vg_core.utils.atomic import file_sha256, replacing

__all__ = ['base_config', 'precompute_tokens', 'run_training', 'score_untrained']

CONFIG = Path(__file__).parent / 'configs' / 'curriculum.py'
EPOCHS, BATCH, MOST = 10, 8, 5
_UNTRAINED = {
    'agreement': (agreement_config, agreement_measurer),
    'zero_shot': (zero_shot_config, zero_shot_measurer),
}


@HOOKS.register_module()
class CountLabels(Hook):
    """Counts the labels that a training run sees."""

    def __init__(self) -> None:
        self.seen = 0

    def after_train_iter(
        self,
        runner: Runner,  # noqa: ARG002  # the signature is MMEngine's
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,
        outputs: Any = None,  # noqa: ARG002
    ) -> None:
        """Add those of a batch."""
        self.seen += sum(len(sample.text) for sample in data_batch['data_samples'])


@HOOKS.register_module()
class OracleHook(PseudoLabelReliabilityHook):
    """Selects during training by what is known of the labels."""

    def __init__(self, known: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.known = known

    def score(self, model: torch.nn.Module) -> np.ndarray:  # noqa: ARG002
        """What is known, in the place of a model's scores."""
        return self.view.read_reliability(self.known)


def base_config(root: Path) -> Config:
    """The benchmark's config on the images in ``root``."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIG)
    cfg.test_dataloader.dataset.data_root = str(root / 'pictures')
    return cfg


def _labels(root: Path) -> dict:
    """What all data sets on the images in ``root`` have in common."""
    return dict(
        type='RefExpDataset',
        data_root=str(root),
        data_prefix=dict(img='pictures/images'),
    )


def precompute_tokens(spec: dict) -> None:
    """Encode the images of all splits once."""
    cfg = base_config(Path(spec['root']))
    for split in ('train', 'val', 'test'):
        frozen_features.precompute(cfg, Path(spec['root']) / f'{split}.npy', split)


def score_untrained(spec: dict) -> None:
    """Scores of the pool's labels by zero-shot CLIP matching, of crops or grounding."""
    root = Path(spec['root'])
    to_config, to_measurer = _UNTRAINED[spec['measurer']]
    options = to_config(base_config(root))
    data = dict(
        _labels(root),
        ann_file=[f'{source}.jsonl' for source in spec['pool']],
        source=spec['pool'],
    )
    dataset = evaluation_view(DATASETS.build(data), AGREEMENT_PIPELINE)
    model = MODELS.build(options)
    model.init_weights()
    score_sources(
        model.eval(),
        dataset,
        dataset.label_files,
        root / 'reliability',
        dict(to_measurer(options, dataset.label_files), name=spec['score_as']),
        AGREEMENT_PIPELINE,
        batch_size=64,
        scorer=AgreementScorer(dataset),
    )


def _config(spec: dict) -> Config:
    root = Path(spec['root'])
    cfg = base_config(root)
    pack = dict(type='PackGroundingInputs')
    numbers = dict(np.load(root / 'firsts.npz'))

    def load(split: str, training: bool = False) -> dict:
        return dict(
            type='LoadTokens',
            size=cfg.image_size,
            tokens=str(root / f'{split}.npy'),
            first=int(numbers[split]),
            training=training,
        )

    model = frozen_features.with_stand_ins(cfg.model.to_dict())
    labels = _labels(root)
    epochs = spec.get('epochs', EPOCHS)
    pool = spec['pool']
    loader = dict(num_workers=0, persistent_workers=False)
    return Config(
        dict(
            default_scope='mmdet',
            model=model,
            work_dir=spec['work_dir'],
            experiment_name=Path(spec['work_dir']).name + f'_{spec["seed"]}',
            train_dataloader=dict(
                loader,
                batch_size=BATCH,
                drop_last=True,
                sampler=dict(
                    type='CurriculumSampler',
                    seed=spec['seed'],
                    grouped=True,
                    max_expressions=MOST,
                    epoch_length=BATCH * spec['steps'] // EPOCHS,
                    **spec.get('sampler', {}),
                ),
                dataset=dict(
                    labels,
                    ann_file=[f'{source}.jsonl' for source in pool],
                    source=pool,
                    image_folds=spec.get('image_folds'),
                    pipeline=[load('train', training=True), pack],
                ),
            ),
            val_dataloader=dict(
                loader,
                batch_size=64,
                sampler=dict(type='ImageGroupSampler', shuffle=False),
                dataset=dict(
                    labels, ann_file='val.jsonl', pipeline=[load('val'), pack]
                ),
            ),
            val_evaluator=dict(type='GroundingMetric'),
            val_cfg=dict(type='ValLoop'),
            train_cfg=dict(
                type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs
            ),
            optim_wrapper=cfg.optim_wrapper,
            param_scheduler=[
                dict(
                    type='OneCycleLR',
                    eta_max=spec.get('lr', cfg.optim_wrapper.optimizer.lr),
                    total_steps=epochs,
                    pct_start=0.1,
                    convert_to_iter_based=True,
                )
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=500),
                sampler_seed=dict(type='ExactResumeHook'),
                checkpoint=dict(type='CheckpointHook', interval=epochs),
            ),
            custom_hooks=[
                dict(type='CountLabels'),
                # Not the validation's: these are other images.
                *(
                    dict(hook, pipeline=[load('train'), pack])
                    for hook in spec.get('hooks', [])
                ),
            ],
            randomness=dict(seed=spec['seed']),
            load_from=spec.get('load_from'),
            log_level='ERROR',
            views={split: [load(split), pack] for split in ('train', 'val', 'test')},
        )
    )


def _measure(
    spec: dict, cfg: Config, model: torch.nn.Module, split: str, out: str | None
) -> dict[str, float]:
    """Accuracy on each language of a split, or the reliability files of the pool."""
    if split == 'pool':
        data = dict(cfg.train_dataloader.dataset, pipeline=cfg.views.train)
        data.update(
            ann_file=[f'{name}.jsonl' for name in spec['score']],
            source=spec['score'],
            image_folds=spec.get('score_folds'),
        )
    else:
        data = dict(cfg.val_dataloader.dataset, ann_file=f'{split}.jsonl')
        data['pipeline'] = cfg.views[split]
    dataset = DATASETS.build(data)
    ious, boxes = score_all(model, dataset, batch_size=64, grouped=True)
    if out is not None:
        keys = dataset.label_keys()
        checkpoint = Path(spec['work_dir']) / f'epoch_{cfg.train_cfg.max_epochs}.pth'
        for file in dataset.label_files:
            indices = dataset.indices_of(file)
            written = ReliabilityFile(
                Path(spec['root']) / 'reliability',
                dict(name=out, sha256=file_sha256(checkpoint)),
                file,
            )
            written.write(keys[indices], ious[indices], boxes[indices])
            written.flush()
    table = dataset.table
    return {
        name: float((ious[table.sources == code] >= 0.5).mean())
        for code, name in enumerate(table.source_names)
    }


def run_training(spec: dict) -> dict:
    """Train, test and score as a specification says, unless it is done.

    Args:
        spec (dict): ``root``, ``work_dir``, ``seed``, ``steps``, ``pool``; further
            ``sampler``, ``hooks``, ``image_folds``, ``load_from``, ``lr``,
            ``epochs``, ``score`` (sources) with ``score_as`` and ``score_folds``; or
            ``task``, a function of this module to run instead.

    Returns:
        dict: ``val`` and ``test`` accuracy on each language, ``seen`` labels,
        ``seconds``.
    """
    work_dir = Path(spec['work_dir'])
    done = work_dir / 'result.json'
    if done.exists():
        return json.loads(done.read_text())
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    for task in (precompute_tokens, score_untrained):
        if spec.get('task') == task.__name__:
            task(spec)
            return _finish(done, {})
    started = time.monotonic()
    cfg = _config(spec)
    runner = Runner.from_cfg(cfg)
    runner.train()
    counted = next(hook for hook in runner.hooks if isinstance(hook, CountLabels))
    scored = [getattr(hook, 'labels_scored', 0) for hook in runner.hooks]
    trained = time.monotonic() - started
    result = dict(
        val=_measure(spec, cfg, runner.model, 'val', None),
        test=_measure(spec, cfg, runner.model, 'test', None),
        seen=counted.seen,
        scored=sum(scored),
        seconds=trained,
        selection=runner.train_dataloader.sampler.selection.tolist(),
    )
    if spec.get('score'):
        _measure(spec, cfg, runner.model, 'pool', spec['score_as'])
    MMLogger._instance_dict.clear()
    return _finish(done, result)


def _finish(done: Path, result: dict) -> dict:
    """Keep what has come out, so that it is not run again."""
    done.parent.mkdir(parents=True, exist_ok=True)
    with replacing(done) as partial:
        partial.write_text(json.dumps(result))
    return result
