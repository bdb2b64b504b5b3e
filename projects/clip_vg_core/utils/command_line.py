"""Command lines: options that were renamed, and errors as one sentence."""

import argparse
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

__all__ = ['RENAMED_ARGUMENTS', 'parse_command', 'run_command']

# Of each script: the old spelling of an argument, and the option of today. A word
# without dashes was positional. docs/configs.md has the same as a table.
RENAMED_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    'tools/make_synthetic.py': {'--out': '--out-dir'},
    'tools/make_synthetic_detections.py': {'--out': '--out-dir'},
    'tools/score_reliability.py': {'--out': '--out-dir'},
    'tools/draw_results.py': {'--number': '--examples'},
    'tools/pretrain_tiny_clip.py': {'--pictures': '--num-images'},
    'tools/deployment/export.py': {
        '--out': '--out-dir',
        '--calibration-questions': '--calibration-expressions',
        '--calibration-pictures': '--num-calibration-images',
    },
    'tools/dataset_converters/refexp2odvg.py': {'OUT': '--out'},
    'tools/dataset_converters/released_reliability.py import': {'--out': '--out-dir'},
    'tools/dataset_converters/released_reliability.py export': {'TARGET': '--out'},
    'tools/dataset_converters/released_reliability.py select': {'TARGET': '--out'},
    'demo/ground.py': {'--questions': '--expressions-file'},
    'benchmarks/confidence.py': {'--data': '--data-root'},
    'benchmarks/curriculum.py': {'--out': '--out-dir', '--pictures': '--num-images'},
    'benchmarks/data.py': {'--pictures': '--num-images'},
    'benchmarks/pseudo_label_correctness.py': {'--pictures': '--num-images'},
    'benchmarks/pseudo_label_scale.py': {'--images': '--num-images'},
    'benchmarks/serving.py': {'--out': '--out-dir'},
}

_LOGGER = logging.getLogger(__name__)
_WRITE = '%s: %s was renamed; write %s.'
# Of the modules whose errors are sentences about the user's files.
_OURS = re.compile(r'projects\.clip_vg(?:_core)?(?:\..+)?|__main__|train')
_KINDS = (ValueError, OSError, RuntimeError, ImportError)
# Of transformers, which MMDetection's BERT asks for a model by its name.
_HUB = re.compile(r"connect to 'https://huggingface\.co'")
_FETCH = (
    'Fetch the model where there is a network (hf download bert-base-uncased '
    '--local-dir bert) and name its folder in the config: see "Grounding DINO" in '
    'docs/troubleshooting.md.'
)
# The end of what a worker of a data loader sends, where our code raised it.
_IN_WORKER = re.compile(
    r'projects/clip_vg(?:_core)?/[^"]*", line \d+, in [^\n]*'
    r'\n +raise (?:(?!\n  File ).)*?'
    r'\n(?P<message>\w[\w.]*: .*)\Z',
    re.DOTALL,
)


def parse_command(
    parser: argparse.ArgumentParser, script: str, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse a command line that may have options under their earlier names.

    Each of these is named by a warning that says what to write.

    Args:
        parser (ArgumentParser): Has the options of today. One that was positional must
            not be required by it: it is here.
        script (str): A key of :data:`RENAMED_ARGUMENTS`, without a subcommand.
        argv (Sequence[str], optional): Defaults to the words after the script's name.

    Returns:
        Namespace: As of ``parser.parse_args``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    key = script if script in RENAMED_ARGUMENTS else ' '.join([script, *words[:1]])
    renamed = RENAMED_ARGUMENTS.get(key, {})
    end = words.index('--') if '--' in words else len(words)
    names = {word.partition('=')[0] for word in words[:end]}
    for index, word in enumerate(words[:end]):
        old, equals, value = word.partition('=')
        if old.startswith('--') and old in renamed:
            if renamed[old] in names:
                parser.error(f'{old} is {renamed[old]} now; give it once')
            _LOGGER.warning(_WRITE, script, old, renamed[old])
            words[index] = f'{renamed[old]}{equals}{value}'
    args, unknown = parser.parse_known_args(words)
    for old, new in renamed.items():
        if old.startswith('--'):
            continue
        dest = new.lstrip('-').replace('-', '_')
        if getattr(args, dest) is None and unknown and unknown[0][:1] != '-':
            _LOGGER.warning(_WRITE, script, f'positional {old}', f'{new} {unknown[0]}')
            setattr(args, dest, unknown.pop(0))
        if getattr(args, dest) is None:
            parser.error(f'the following arguments are required: {new}')
    if unknown:
        parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    return args


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
    if _HUB.search(str(error)):
        return f'{type(error).__name__}: {str(error).splitlines()[0]} {_FETCH}'
    if found := _IN_WORKER.search(str(error)):
        return found['message'].strip()
    return None
