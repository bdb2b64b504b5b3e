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
from .renamed_options import rename_options
from .safe_loading import read_checkpoint

__all__ = ['check_detector_config', 'config_of_checkpoint', 'parse_config_text']

_GIVE_CONFIG = 'Give the config file of the training run.'


def parse_config_text(text: str, source: str) -> Config:
    """Read a config of plain values, as MMEngine writes it into a checkpoint.

    MMEngine would run the text as Python; ``ast.literal_eval`` reads literals alone.

    Args:
        text (str): Assignments of values to names.
        source (str): What to call it in an error.

    Returns:
        Config: The values.

    Raises:
        ValueError: The text has something else; the error names it.
    """
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            name, value = _assigned(statement)
            values[name] = _plain(value, name)
        return Config(values)
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{source}: its config is no Python text of plain values, and was not run: '
            f'{str(error)[:200]}. {_GIVE_CONFIG}'
        ) from error
    except (RecursionError, MemoryError) as error:  # of the parser, for deep nesting
        raise ValueError(
            f'{source}: its config is nested too deep to be one. {_GIVE_CONFIG}'
        ) from error


def _assigned(statement: ast.stmt) -> tuple[str, ast.expr]:
    """The name and the value of a plain assignment."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        (target,) = statement.targets
        if isinstance(target, ast.Name):
            return target.id, statement.value
    raise ValueError(f'it has "{ast.unparse(statement)[:80]}"')


def _plain(value: ast.expr, name: str) -> Any:
    """The value of an expression of literals and ``dict(...)``."""
    literal = _DictCalls().visit(value)
    try:
        return ast.literal_eval(literal)
    except ValueError as error:
        # What follows the line's number is the address of a node in memory.
        where = str(error).split(':')[0]
        raise ValueError(f'{name} = {ast.unparse(literal)[:80]}: {where}') from None


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a+': 1})`` into literals, as ``{'a': 1}``.

    MMEngine writes the second where a key is no name.
    """

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        """A call of ``dict`` with names or a literal, the only one that may be."""
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if is_dict and not node.keywords and len(node.args) == 1:
            (literal,) = node.args
            if isinstance(literal, ast.Dict) and None not in literal.keys:
                return self.visit(literal)
        if not is_dict or node.args or not all(word.arg for word in node.keywords):
            raise ValueError(f'it has "{ast.unparse(node)[:80]}"')
        return ast.Dict(
            keys=[ast.Constant(word.arg) for word in node.keywords],
            values=[self.visit(word.value) for word in node.keywords],
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
            f'{path} has no config in its meta: give the config file of its training '
            'run.'
        )
    cfg = parse_config_text(text, str(path))
    check_detector_config(cfg, path, slim=FINGERPRINT in checkpoint['state_dict'])
    return cfg


def check_detector_config(cfg: Config, path: str | Path, slim: bool = False) -> None:
    """Refuse a config that a checkpoint or a published folder may not bring.

    Args:
        cfg (Config): Of plain values. Options are renamed to those of today in place,
            and what the weights began as is left out.
        path (str or Path): What to call it in an error.
        slim (bool): Whether the checkpoint needs the weights of CLIP that the config
            names. Defaults to False.

    Raises:
        ValueError: As of :func:`config_of_checkpoint`.
    """
    # First: what follows knows the names of today only.
    rename_options(list(cfg.values()))
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
    _drop_files(cfg.model, slim)
    # Before anything is built: registered classes may read files or download.
    check_config(cfg.model.to_dict(), MODEL_PARTS, str(path), _GIVE_CONFIG)
    if cfg.model.get('type') != 'CLIPVG':
        raise ValueError(
            f'{path}: its config has a model of the type {cfg.model.get("type")!r}; '
            f"expected 'CLIPVG'. {_GIVE_CONFIG}"
        )
    check_config(pipeline, TRANSFORMS, str(path), _GIVE_CONFIG)


def _drop_files(model: ConfigDict, slim: bool) -> None:
    """Leave out the files that a training run started from, or kept tokens in.

    Nothing reads them, and a path among them is no reason to refuse a checkpoint.

    Args:
        model (ConfigDict): Config of the detector, changed in place.
        slim (bool): Whether the checkpoint needs the weights of CLIP.
    """
    model.pop('visual_token_dir', None)
    for part in (model, *model.values()):
        if isinstance(part, dict):
            part.pop('init_cfg', None)
            if not slim:
                part.pop('pretrained', None)
