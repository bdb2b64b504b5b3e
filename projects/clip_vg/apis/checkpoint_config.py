"""The config that a checkpoint holds, read without running it."""

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..compat import load_from_local
from ..config_types import check_types

__all__ = ['config_of_checkpoint', 'parse_config_text']


def parse_config_text(text: str, source: str) -> Config:
    """Read a config of plain values, as MMEngine writes it into a checkpoint.

    MMEngine would run the text as Python; this reads literals and ``dict(...)`` alone.

    Args:
        text (str): Assignments of values to names.
        source (str): What to call it in an error.

    Returns:
        Config: The values.

    Raises:
        ValueError: Something else is in the text, or a ``type`` is not a plain name of
            a registry; it says what.
    """
    values = {}
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(f'{source}: its config is no Python text: {error}.') from error
    for statement in statements:
        if (
            not isinstance(statement, ast.Assign)
            or len(statement.targets) != 1
            or not isinstance(statement.targets[0], ast.Name)
        ):
            raise _refused(statement, source)
        values[statement.targets[0].id] = _value(statement.value, source)
    check_types(values, source, 'Give the config file of the training.')
    return Config(values)


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
    return ValueError(
        f'{source}: its config has "{ast.unparse(node)[:80]}", which is no plain value '
        'and was not run. Give the config file of the training.'
    )


def config_of_checkpoint(path: str | Path) -> Config:
    """The config that a checkpoint of MMEngine was trained with.

    Args:
        path (str or Path): The checkpoint.

    Returns:
        Config: Of plain values; nothing in the file was run.

    Raises:
        ValueError: There is none, or it has more than plain values.
    """
    checkpoint = load_from_local(str(path), map_location='cpu')
    text = (
        checkpoint.get('meta', {}).get('cfg') if isinstance(checkpoint, dict) else None
    )
    if not isinstance(text, str):
        raise ValueError(
            f'{path} does not say what config it was trained with: give the config '
            'file too.'
        )
    return parse_config_text(text, str(path))
