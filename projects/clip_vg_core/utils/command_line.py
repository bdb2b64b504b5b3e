"""Errors of commands: one sentence for the user, a traceback for a defect."""

import os
import re
import traceback
from collections.abc import Callable

__all__ = ['run_command']

# Of the modules whose errors are sentences about the user's files.
_OURS = re.compile(r'projects\.clip_vg(?:_core)?(?:\..+)?|__main__|train')
_KINDS = (ValueError, OSError, RuntimeError, ImportError)
# The end of what a worker of a data loader sends, where our code raised it.
_IN_WORKER = re.compile(
    r'projects/clip_vg(?:_core)?/[^"]*", line \d+, in [^\n]*'
    r'\n +raise (?:(?!\n  File ).)*?'
    r'\n(?P<message>\w[\w.]*: .*)\Z',
    re.DOTALL,
)


def run_command(main: Callable[[], None]) -> None:
    """Run a command; an error raised by this project ends it by its message alone.

    Other errors keep their traceback; with ``CLIP_VG_TRACEBACK=1`` all do.

    Args:
        main (Callable): The command.

    Raises:
        SystemExit: With the message, which Python writes to stderr.
    """
    try:
        main()
    except _KINDS as error:
        message = _message(error)
        if message is None or os.environ.get('CLIP_VG_TRACEBACK'):
            raise
        raise SystemExit(message) from None


def _message(error: Exception) -> str | None:
    """The message of an error that our code raised, else None."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    (summary,) = traceback.StackSummary.extract([(frame, line)])
    if _OURS.fullmatch(frame.f_globals.get('__name__', '')):
        # An error that Python itself raises in our code is a defect: it keeps its own.
        if (summary.line or '').startswith('raise '):
            return f'{type(error).__name__}: {error}'
        return None
    if found := _IN_WORKER.search(str(error)):
        return found['message'].strip()
    return None
