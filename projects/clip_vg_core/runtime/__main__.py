"""Ground expressions by an exported folder, without PyTorch and MMDetection.

    python -m projects.clip_vg_core.runtime FOLDER IMAGE EXPRESSION...
    python -m projects.clip_vg_core.runtime FOLDER --serve [--host HOST] [--port PORT]

The first prints a line of JSON for each expression: its boxes (xyxy, pixels of the
upright image) and scores, the best first; none where it is not in the image. Scores
are null where the detector has no confidence head. The second serves POST /ground,
GET /health and GET /metrics (docs/serving.md).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from ..utils.command_line import run_command
from .graphs import BACKENDS, PRECISIONS


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m projects.clip_vg_core.runtime',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('folder', type=Path, help='exported folder')
    parser.add_argument('image', type=Path, nargs='?', help='image file')
    parser.add_argument(
        'expressions', nargs='*', help='expressions to ground, such as "left man"'
    )
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        help='what runs the graphs (default: the first that is installed)',
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='f32', help='(default: %(default)s)'
    )
    parser.add_argument(
        '--threads', type=int, help='threads of a prediction (default: all cores)'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='least score of a box that is given (default: that of the folder)',
    )
    server = parser.add_argument_group('server')
    server.add_argument('--serve', action='store_true', help='serve by HTTP')
    server.add_argument(
        '--host', default='127.0.0.1', help='address to serve at (default: %(default)s)'
    )
    for name, default, what in (
        ('port', 8000, 'port to serve at'),
        ('queue', 16, 'most requests that wait'),
        ('workers', 1, 'requests that run at a time'),
        ('max-expressions', 100, 'most expressions of a request'),
        ('max-pixels', 40_000_000, 'most pixels of an image'),
        ('max-body', 14_000_000, 'most bytes of a request'),
        ('cache', 64_000_000, 'most bytes of encoded images that are kept'),
    ):
        server.add_argument(
            f'--{name}',
            type=int,
            default=default,
            help=f'{what} (default: %(default)s)',
        )
    args = parser.parse_args()
    if args.serve == bool(args.expressions) or (args.serve and args.image):
        parser.error('give an image and expressions, or --serve')
    counts = (args.queue, args.workers, args.max_expressions, args.max_pixels)
    if min(*counts, args.max_body) < 1 or args.cache < 0:
        parser.error('the limits of --serve are at least 1; --cache is at least 0')
    return args


def main() -> None:
    """Ground, or serve."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    from .exported_inferencer import ExportedInferencer

    infer = ExportedInferencer(
        args.folder,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        score_thr=args.score_thr,
    )
    if args.serve:
        from .limits import Limits
        from .server import ServerOptions, serve

        options = ServerOptions(
            limits=Limits(args.max_pixels, args.max_expressions),
            body=args.max_body,
            queue=args.queue,
            workers=args.workers,
            cache=args.cache,
        )
        serve(infer, args.host, args.port, options)
        return
    (found,) = infer(args.image, args.expressions)['predictions']
    for label, text in enumerate(args.expressions):
        own = [row for row, other in enumerate(found['labels']) if other == label]
        line = dict(
            expression=text,
            boxes=[found['bboxes'][row] for row in own],
            scores=[found['scores'][row] for row in own],
        )
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    run_command(main)
