"""What a long search has finished, line by line, so that it can be continued."""

import json
import os
from pathlib import Path
from typing import Any

from projects.clip_vg_core.utils.folder_lock import FolderLock

__all__ = ['Journal']


class Journal:
    """JSON Lines: the settings first, then one line for each finished step.

    A line is on disk before the next step starts. One process at a time writes.

    Args:
        path (str or Path): The file; made if it is not there.
        settings (dict): What decides the results.

    Raises:
        ValueError: The file was begun with other settings, or is damaged.
        RuntimeError: Another process has it open.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self._lock = FolderLock(self.path.parent)
        self._file = self.path.open('a+', encoding='utf-8')
        try:
            self._begin(settings)
        except BaseException:
            self.close()
            raise

    def _begin(self, settings: dict[str, Any]) -> None:
        """Read what is there, and compare the settings."""
        settings = json.loads(json.dumps(settings))
        lines = self._read()
        self.steps: dict[str, dict[str, Any]] = {
            line['step']: line for line in lines[1:]
        }
        if not lines:
            self._append(dict(settings=settings))
        elif lines[0].get('settings') != settings:
            found = lines[0].get('settings', {})
            changed = sorted(
                key
                for key in {*found, *settings}
                if found.get(key) != settings.get(key)
            )
            raise ValueError(
                f'{self.path} was begun with other settings: '
                + '; '.join(
                    f'{key} was {found.get(key)!r}, is {settings.get(key)!r}'
                    for key in changed
                )
                + '. Use another --work-dir, the settings it was begun with, or '
                '--overwrite.'
            )

    def _read(self) -> list[dict[str, Any]]:
        """All whole lines; a last one that was cut by a kill is taken away."""
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind('\n') + 1]
        if whole != text:
            self._file.truncate(len(whole.encode()))
            self._file.seek(0, os.SEEK_END)
        lines = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f'{self.path}, line {number} is not valid JSON: {error}. Remove '
                    'this line and those after it; their steps are repeated.'
                ) from error
        return lines

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + '\n')
        self._file.flush()
        os.fsync(self._file.fileno())

    def done(self, step: str, **result: Any) -> dict[str, Any]:
        """Note that a step is finished.

        Args:
            step (str): Its name.
            **result: What it found; JSON.

        Returns:
            dict: The line.
        """
        line = dict(step=step, **result)
        self._append(line)
        self.steps[step] = json.loads(json.dumps(line))
        return self.steps[step]

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()
        self._lock.close()
