"""The config in a checkpoint, read without running it."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from projects.clip_vg_core.utils.config_types import (
    MODEL_PARTS,
    TRANSFORMS,
    check_config,
)

from .frozen_weights import FINGERPRINT
from .safe_loading import read_checkpoint

__all__ = ['config_of_checkpoint', 'parse_config_text']

_GIVE_CONFIG = 'Give the config file of the training.'


def parse_config_text(text: str, source: str) -> Config:
    """Read a config of plain values, as MMEngine writes it into a checkpoint.

    MMEngine would run the text as Python; this reads literals and ``dict(...)`` alone.

    Args:
        text (str): Assignments of values to names.
        source (str): What to call it in an error.

    Returns:
        Config: The values.

    Raises:
        ValueError: Something else is in the text; it says what.
    """
    try:
        statements = ast.parse(text).body
        values = {}
        for statement in statements:
            if (
                not isinstance(statement, ast.Assign)
                or len(statement.targets) != 1
                or not isinstance(statement.targets[0], ast.Name)
            ):
                raise _refused(statement, source)
            values[statement.targets[0].id] = _value(statement.value, source)
        return Config(values)
    except _Refused:
        raise
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{source}: its config is no Python text of plain values: '
            f'{str(error)[:200]}. {_GIVE_CONFIG}'
        ) from error
    except (RecursionError, MemoryError) as error:  # of the parser, for deep nesting
        raise ValueError(
            f'{source}: its config is nested too deep to be one. {_GIVE_CONFIG}'
        ) from error


class _Refused(ValueError):
    """A text has more than plain values."""


def _value(node: ast.expr, source: str) -> Any:
    """The value of an expression of literals and ``dict(...)``."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(item, source) for item in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key, source) for key in node.keys if key is not None]
        return dict(zip(keys, (_value(v, source) for v in node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, source)
        if isinstance(value, (int, float)):
            return -value
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
        and not node.args
        and all(keyword.arg for keyword in node.keywords)
    ):
        return {str(k.arg): _value(k.value, source) for k in node.keywords}
    raise _refused(node, source)


def _refused(node: ast.AST, source: str) -> ValueError:
    return _Refused(
        f'{source}: its config has "{ast.unparse(node)[:80]}", which is no plain value '
        f'and was not run. {_GIVE_CONFIG}'
    )


def config_of_checkpoint(
    path: str | Path, checkpoint: Mapping[str, Any] | None = None
) -> Config:
    """The config that a checkpoint of MMEngine was trained with.

    Args:
        path (str or Path): The checkpoint.
        checkpoint (Mapping, optional): As :func:`read_checkpoint` read it. Defaults
            to None: it is read.

    Returns:
        Config: Of plain values. ``model`` and ``test_dataloader.dataset.pipeline``
        name nothing but parts of a grounding detector and no path. What the weights
        began as is left out where the checkpoint has them.

    Raises:
        ValueError: There is none, it has more than plain values, or these two parts
            are missing or name something else.
    """
    checkpoint = checkpoint or read_checkpoint(path)
    text = checkpoint['meta'].get('cfg')
    if not isinstance(text, str):
        raise ValueError(
            f'{path} does not say what config it was trained with: give the config '
            'file too.'
        )
    cfg = parse_config_text(text, str(path))
    plain = cfg.to_dict()
    try:
        pipeline = plain['test_dataloader']['dataset']['pipeline']
        model = plain['model']
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: its config has no {error}; expected a model and a '
            f'test_dataloader with a dataset and its pipeline. {_GIVE_CONFIG}'
        ) from error
    if not isinstance(model, dict) or not isinstance(pipeline, list):
        raise ValueError(
            f'{path}: its config has a model that is a {type(model).__name__} and a '
            f'pipeline that is a {type(pipeline).__name__}. {_GIVE_CONFIG}'
        )
    _forget_beginnings(cfg.model, slim=FINGERPRINT in checkpoint['state_dict'])
    check_config(cfg.model.to_dict(), MODEL_PARTS, str(path), _GIVE_CONFIG)
    if cfg.model.get('type') != 'CLIPVG':
        raise ValueError(
            f'{path}: its config has a model of the type {cfg.model.get("type")!r}; '
            f"expected 'CLIPVG'. {_GIVE_CONFIG}"
        )
    check_config(pipeline, TRANSFORMS, str(path), _GIVE_CONFIG)
    return cfg


def _forget_beginnings(model: ConfigDict, slim: bool) -> None:
    """Leave out the files that a training run began with.

    Nothing reads them, and a path among them is no reason to refuse a checkpoint.

    Args:
        model (ConfigDict): Config of the detector, changed in place.
        slim (bool): Whether the checkpoint needs the weights of CLIP.
    """
    for part in (model, *model.values()):
        if isinstance(part, dict):
            part.pop('init_cfg', None)
            if not slim:
                part.pop('pretrained', None)
