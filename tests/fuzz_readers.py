"""Feed the readers with changed annotation files: a table or an error that names it.

    python tests/fuzz_readers.py --inputs 100000 --seed 0

Every file of tests/helpers/layout_files.py is changed in its bytes, or in its structure
where it is JSON: values exchanged, taken out, doubled, nested, of other types and of
extreme sizes. An outcome is a table whose columns belong together, or an error of the
readers: ``ValueError`` or ``FileNotFoundError`` that names the file in a sentence of
bounded length. Memory and the time of an input are bounded. Prints counts; exits with 1
at the first violation, and says the seed that repeats it.
"""

import argparse
import collections
import importlib.util
import json
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from projects.clip_vg_core.data.label_keys import content_keys
from projects.clip_vg_core.data.label_table import invalid_boxes
from projects.clip_vg_core.data.readers import read_annotations

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.helpers.layout_files import WRITERS  # noqa: E402

SECONDS = 5  # of CPU time: other processes may be busy
PATIENCE = 60  # seconds on the clock, for what never ends
LONGEST = 2500  # characters of an error; paths of a temporary folder are in it
VALUES = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e308),
    *(float('nan'), float('inf'), '', 'x', '1', '-1', '[1, 2, 3, 4]', 'é\ud800', '\0'),
    *('../x', '/x', 'x' * 5000, '<loc_1>', '<ref>x</ref><box>(1,2),(3,4)</box>'),
    *([], {}, [[]], [None], [1, 2, 3, 4], [[1, 2, 3, 4], [5, 6, 7, 8]], {'a': 1}),
    *([1, 2, 3], [1, 2, 3, 'x'], [float('nan')] * 4, {'bytes': '', 'path': None}),
]


class Violation(Exception):
    """An outcome that may not be."""


def fixtures(folder):
    """The files of each layout: names, contents and arguments."""
    found = []
    for name, write in WRITERS.items():
        if 'parquet' in name and importlib.util.find_spec('pyarrow') is None:
            continue
        place = folder / name
        place.mkdir()
        arguments, _ = write(place)
        files = {
            str(path.relative_to(place)): path.read_bytes()
            for path in sorted(place.rglob('*'))
            if path.is_file()
        }
        options = {
            key: str(value.relative_to(place)) if isinstance(value, Path) else value
            for key, value in arguments.items()
        }
        found.append((name, files, options))
    return found


def places(value, at=()):
    """Where values are in a structure."""
    yield at
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*at, key))


def change_structure(rng, value):
    """A JSON value with one to three changes."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.choice(list(places(value)))
        if not at:
            draw = rng.random()
            return (
                rng.choice(VALUES) if draw < 0.3 else [value] if draw < 0.6 else value
            )
        parent = value
        for key in at[:-1]:
            parent = parent[key]
        draw = rng.random()
        if draw < 0.5:
            parent[at[-1]] = rng.choice(VALUES)
        elif draw < 0.7:
            del parent[at[-1]]
        elif draw < 0.8:
            parent[at[-1]] = [parent[at[-1]]]
        elif isinstance(parent, list):
            parent.insert(0, parent[at[-1]])
        else:
            parent[rng.choice(['bbox', 'image', 'text', 'id', 'x'])] = parent[at[-1]]
    return value


def change_json(rng, data):
    """A changed JSON value, or JSON Lines with a changed line; None for others."""
    try:
        text = data.decode()
        try:
            return json.dumps(change_structure(rng, json.loads(text))).encode()
        except ValueError:
            lines = text.splitlines()
            index = rng.randrange(len(lines))
            lines[index] = json.dumps(change_structure(rng, json.loads(lines[index])))
            return '\n'.join(lines).encode('utf-8', 'replace')
    except (ValueError, RecursionError):
        return None


def change_bytes(rng, data):
    """Bytes changed, taken out, doubled, cut, or nested without end."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(out) + 1)
        draw = rng.random()
        if draw < 0.4 and out:
            out[place % len(out)] = rng.randrange(256)
        elif draw < 0.6:
            del out[place : place + rng.randrange(1, 9)]
        elif draw < 0.8:
            piece = rng.randrange(len(out) + 1)
            out[place:place] = out[piece : piece + rng.randrange(1, 30)]
        elif draw < 0.9:
            del out[place:]
        else:
            out[place:place] = rng.choice([b'[', b'{"a":', b'<a>']) * 20_000
    return bytes(out)


def check(table):
    """Columns of a table must belong together, and all of it can be looked at."""
    count = len(table)
    boxes = int(table.target_counts().sum())
    lengths = [table.boxes.shape == (boxes, 4), len(table.texts) == count]
    lengths += [len(table.sample_ids) == count, len(table.splits) == count]
    if not all(lengths) or table.boxes.dtype != np.float32:
        raise Violation('columns do not belong together')
    if count and table.image_index.max() >= len(table.images):
        raise Violation('an image that is not there')
    content_keys(table)
    list(invalid_boxes(table))
    for label in table:
        if not all(isinstance(label[key], str) for key in ('image', 'text', 'split')):
            raise Violation('a text that is none')


def outcome(folder, options):
    """Read one input: 'read' or 'refused'."""

    def late(*_):
        raise Violation(f'over {PATIENCE} s')

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    arguments = {
        key: folder / value if key in ('ann_file', 'split_file') else value
        for key, value in options.items()
    }
    begin = time.process_time()
    try:
        check(read_annotations(**arguments))
        result = 'read'
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        if str(folder) not in text:
            raise Violation(f'an error that names no file: {error!r}') from error
        if len(text) > LONGEST:
            raise Violation(f'an error of {len(text)} characters') from error
        result = 'refused'
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.process_time() - begin > SECONDS:
        raise Violation(f'over {SECONDS} s of CPU time')
    return result


def run(inputs, seed, folder):
    """Feed inputs and count outcomes; see the module.

    Returns:
        Counter: Of (layout, outcome).

    Raises:
        Violation: An outcome that may not be, with what repeats it.
    """
    counts = collections.Counter()
    (folder / 'originals').mkdir()
    known = fixtures(folder / 'originals')
    rng = random.Random(seed)
    for number in range(inputs):
        name, files, options = known[number % len(known)]
        place = folder / 'input' / name
        changed = rng.choice(list(files))
        data = change_json(rng, files[changed]) if rng.random() < 0.6 else None
        data = change_bytes(rng, files[changed]) if data is None else data
        for other, content in files.items():
            path = place / other
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if other == changed else content)
        targets = rng.choice(['one', 'any'])
        try:
            counts[name, outcome(place, dict(options, targets=targets))] += 1
        except Exception as error:
            raise Violation(
                f'input {number} of seed {seed}, {name}, {changed}: '
                f'{type(error).__name__}: {error}; content {data[:500]!r}'
            ) from error
    return counts


def bound_memory():
    """A GiB more than there is."""
    with open('/proc/self/statm') as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--inputs', type=int, default=100_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    bound_memory()
    with tempfile.TemporaryDirectory() as folder:
        try:
            counts = run(args.inputs, args.seed, Path(folder))
        except Violation as violation:
            print(f'VIOLATION: {violation}', flush=True)  # noqa: T201
            sys.exit(1)
    for (name, result), count in sorted(counts.items()):
        print(f'{name:28} {result:8} {count:8,}')  # noqa: T201
    print(f'{sum(counts.values()):,} inputs, no violation')  # noqa: T201


if __name__ == '__main__':
    main()
