"""Finished steps of a long search, line by line, so that it can be resumed."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ['append_line', 'read_journal']


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append a JSON line, which is on disk when this returns."""
    with path.open('a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')
        file.flush()
        # A step that is noted must be over also after a power failure.
        os.fsync(file.fileno())


def read_journal(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Finished steps of a journal; begins it if there is none.

    The first line has the settings, each other one a finished step.

    Args:
        path (Path): The JSON lines, in a folder that the caller has locked.
        settings (dict): What decides the results.

    Returns:
        dict[str, dict]: Line of each step by its name.

    Raises:
        ValueError: It was begun with other settings, or is damaged.
    """
    # As they are read back: tuples become lists.
    settings = json.loads(json.dumps(settings))
    lines = _read_lines(path) if path.exists() else []
    if not lines:
        append_line(path, dict(settings=settings))
    elif lines[0].get('settings') != settings:
        begun = lines[0].get('settings', {})
        changed = sorted(
            key for key in {*begun, *settings} if begun.get(key) != settings.get(key)
        )
        raise ValueError(
            f'{path} was begun with other settings: '
            + '; '.join(
                f'{key} was {begun.get(key)!r}, is {settings.get(key)!r}'
                for key in changed
            )
            + '. Use another --work-dir, the settings it was begun with, or '
            '--overwrite.'
        )
    return {line['step']: line for line in lines[1:]}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last one that a kill has cut is removed."""
    text = path.read_text(encoding='utf-8')
    whole = text[: text.rfind('\n') + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f'{path}, line {number} is not valid JSON: {error}. Remove this line '
                'and those after it; their steps are repeated.'
            ) from error
    return lines
