"""The model card of a published detector, from what its files say and nothing else."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from mmengine.config import Config

from projects.clip_vg_core.data.readers.common import entry_of, read_json
from projects.clip_vg_core.utils.data_root import data_sets_of

from ..checkpoints.checkpoint_config import parse_config_text
from ..installed_files import get_path
from ..version import __version__

__all__ = ['Evaluation', 'describe_data', 'model_card', 'read_evaluation']

# Of the same file, and no metrics.
_TIMES = ('time', 'data_time')
_CARD = """---
{metadata}
---

# {name}

A [CLIP-VG](https://arxiv.org/abs/2305.08685) detector for visual grounding: an image
and an expression such as "the left man" in, {boxes} out. It runs in CLIP-VG for
MMDetection {version}; its `tools/model_converters/publish.py` wrote this card from the
checkpoint.

## Use

```python
from projects.clip_vg.apis import GroundingInferencer

infer = GroundingInferencer.from_pretrained({name!r})
infer('street.jpg', ['left man', 'red car'])['predictions'][0]['bboxes']
```

Boxes are (x1, y1, x2, y2) in pixels of the image. `model.safetensors` has all weights,
those of CLIP included, and `config.json` the network and the test transforms; there are
no pickles and nothing is executed.

## Model

{model}

## Training

{training}

## Evaluation

{evaluation}

## Licence

{licence} The weights include those of the towers above, whose licences hold as well.
"""


@dataclass(frozen=True)
class Evaluation:
    """What ``tools/test.py`` measured of a checkpoint.

    Args:
        metrics (dict[str, float]): Finite values by their names, such as
            ``grounding/testA/acc_0.5``.
        data (list[tuple[str, str]]): Files and split of each data set.
        command (str): How it was measured.
    """

    metrics: dict[str, float]
    data: list[tuple[str, str]]
    command: str


def read_evaluation(path: Path, checkpoint: Path) -> Evaluation:
    """Read a file of metrics, and of the config beside it what they are of.

    Args:
        path (Path): ``WORK_DIR/TIMESTAMP/TIMESTAMP.json`` of ``tools/test.py``, beside
            which MMEngine has ``vis_data/config.py``; that is not executed.
        checkpoint (Path): The one that was tested.

    Raises:
        FileNotFoundError: One of both files is missing.
        ValueError: It has no metrics, or they are of another checkpoint.
    """
    config = path.parent / 'vis_data' / 'config.py'
    for file in (path, config):
        if not file.is_file():
            raise FileNotFoundError(
                f'{file}: no such file; expected WORK_DIR/TIMESTAMP/TIMESTAMP.json of '
                'tools/test.py, with vis_data/config.py beside it.'
            )
    found = entry_of(read_json(path), dict, str(path), 'a JSON object of metrics')
    metrics = {
        name: float(value)
        for name, value in found.items()
        if name not in _TIMES and isinstance(value, (int, float))
        if math.isfinite(value)
    }
    if not metrics:
        raise ValueError(
            f'{path} has no metrics, only {list(found)[:8]}; expected what '
            'tools/test.py wrote, such as "grounding/acc_0.5".'
        )
    cfg = parse_config_text(config.read_text(encoding='utf-8'), str(config))
    tested = cfg.get('load_from')
    if tested is None or Path(tested).resolve() != checkpoint.resolve():
        raise ValueError(
            f'{path} has metrics of {tested or "an exported detector"}; expected those '
            f'of {checkpoint}: run tools/test.py CONFIG {checkpoint}.'
        )
    # Runner writes the config there, under its name.
    names = [file.stem for file in path.parents[1].glob('*.py')]
    return Evaluation(
        metrics=metrics,
        data=describe_data(cfg.test_dataloader.dataset),
        command=f'python tools/test.py {_config(names)} DIR'
        + ' --tta' * ('module' in cfg.model),
    )


def _config(names: Sequence[str]) -> str:
    """The config in a command, where it is known."""
    if len(names) != 1:
        return 'CONFIG'
    ours = get_path('configs') / f'{names[0]}.py'
    return f'configs/{ours.name}' if ours.is_file() else ours.name


def describe_data(dataset: Any) -> list[tuple[str, str]]:
    """Files and splits of a loader's data sets; of absolute paths the name alone.

    Args:
        dataset (Any): Its config, wrappers included.
    """
    described = []
    for one in data_sets_of(dataset):
        files = [
            Path(file).name if Path(file).is_absolute() else Path(file).as_posix()
            for key in ('ann_file', 'split_file')
            for file in _several(one.get(key))
        ]
        described.append((', '.join(files), ', '.join(_several(one.get('split')))))
    return described


def model_card(
    name: str,
    training: Config,
    meta: Mapping[str, Any],
    numbers: int,
    evaluations: Sequence[Evaluation] = (),
    license_id: str | None = None,
) -> str:
    """The text of a model card, with its metadata.

    Args:
        name (str): Of the repository or folder.
        training (Config): Config of the training run.
        meta (Mapping[str, Any]): That of the checkpoint.
        numbers (int): Of all weights.
        evaluations (Sequence[Evaluation]): Defaults to none, which the card says.
        license_id (str, optional): An identifier of the hub, such as 'apache-2.0'.
            Defaults to None: not stated.
    """
    results = _results(evaluations) or None
    metadata = ModelCardData(
        license=license_id or 'unknown',
        library_name='clip-vg-mmdet',
        tags=['visual-grounding', 'referring-expression-comprehension', 'clip-vg'],
        model_name=name if results else None,
        eval_results=results,
    )
    queries = training.model.get('num_queries', 1)
    return _CARD.format(
        metadata=metadata.to_yaml(),
        name=name,
        boxes='a box' if queries == 1 else 'no box, one or several',
        version=__version__,
        model=_table(_model_rows(training.model, numbers)),
        training=_table(_training_rows(training, meta)),
        evaluation='\n\n'.join(map(_evaluation, evaluations))
        or 'No metrics were given.',
        licence=f'`{license_id}`.' if license_id else 'Not stated.',
    )


def _model_rows(model: Mapping[str, Any], numbers: int) -> list[tuple[str, Any]]:
    """What the network is."""
    return [
        ('visual tower', _tower(model['visual_encoder'])),
        ('text tower', _tower(model['text_encoder'])),
        ('numbers in its weights', f'{numbers:,}'),
        ('boxes of an expression, at most', model.get('num_queries', 1)),
        ('confidence head', 'yes' if model.get('confidence_head') else 'no'),
    ]


def _tower(tower: Mapping[str, Any]) -> str:
    """Architecture, weights and training of a tower."""
    arch = tower['arch']
    if not isinstance(arch, str):
        part = arch.get('vision_cfg' if 'Visual' in tower['type'] else 'text_cfg', {})
        named = part.get('timm_model_name') or part.get('hf_model_name')
        arch = named or 'as in config.json'
    adapter = tower.get('adapter')
    trained = 'frozen' if tower.get('frozen', True) else 'trained'
    if adapter:
        trained = f'adapted by {adapter.get("kind")}'
    weights = Path(tower.get('pretrained') or 'none').name
    return f'{arch}, weights {weights}, {trained}'


def _training_rows(training: Config, meta: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What the training run was, as far as the checkpoint tells."""
    loader = training.get('train_dataloader') or {}
    optimizer = (training.get('optim_wrapper') or {}).get('optimizer') or {}
    sampler = (loader.get('sampler') or {}).get('type')
    rows = [
        ('training run', meta.get('experiment_name')),
        *(
            ('data', ', split '.join(filter(None, one)))
            for one in describe_data(loader.get('dataset'))
        ),
        ('sampler', sampler),
        ('batch size of a process', loader.get('batch_size')),
        ('epochs', meta.get('epoch')),
        ('optimizer', optimizer.get('type')),
        ('learning rate', optimizer.get('lr')),
        ('seed', meta.get('seed')),
    ]
    return [(what, value) for what, value in rows if value not in (None, '')]


def _groups(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The metrics of all labels (''), and those of each split or source."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in evaluation.metrics.items():
        *group, metric = name.split('/')
        groups.setdefault('/'.join(group[1:]), {})[metric] = value
    return groups


def _evaluation(evaluation: Evaluation) -> str:
    """Metrics, what they are of, and the command."""
    groups = _groups(evaluation)
    names = list(dict.fromkeys(name for own in groups.values() for name in own))
    data = '; '.join(', split '.join(filter(None, one)) for one in evaluation.data)
    rows = [
        (
            group or 'all',
            *(f'{own[name]:.4f}' if name in own else '' for name in names),
        )
        for group, own in groups.items()
    ]
    return (
        f'{_markdown(data)}:\n\n{_table(rows, ("labels", *names))}\n\nMeasured, and '
        'measured again in the folder DIR of this repository, by\n\n```\n'
        f'{evaluation.command}\n```'
    )


def _results(evaluations: Sequence[Evaluation]) -> list[EvalResult]:
    """The metrics as the hub's metadata has them."""
    return [
        EvalResult(
            task_type='visual-grounding',
            # The hub joins results of one type and split.
            dataset_type='; '.join(files for files, _ in evaluation.data),
            dataset_name='; '.join(files for files, _ in evaluation.data),
            dataset_split=group or '; '.join(split for _, split in evaluation.data),
            metric_type=metric,
            metric_value=value,
        )
        for evaluation in evaluations
        for group, own in _groups(evaluation).items()
        for metric, value in own.items()
    ]


def _table(rows: Sequence[Sequence[Any]], head: Sequence[str] = ('', '')) -> str:
    """A table of Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(map(_markdown, line))} |' for line in lines)


def _markdown(value: Any) -> str:
    """A value as text that is no Markdown or HTML itself."""
    return re.sub(r'([\\|`*<\[])', r'\\\1', str(value))


def _several(value: Any) -> list[str]:
    """None, a text or a list of them, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]
