"""A web page that grounds expressions in images.

    python demo/app.py --checkpoint FILE [FILE...]

Serves http://127.0.0.1:7860 until it is stopped (Ctrl-C): drop an image, type
expressions, see their boxes. Nothing is sent elsewhere or fetched from there.
"""

from __future__ import annotations

import argparse
import html
import logging
import os
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from projects.clip_vg_core.runtime.limits import ByteLimits, Limits
from projects.clip_vg_core.utils.command_line import run_command

if TYPE_CHECKING:
    import gradio as gr

    from projects.clip_vg.apis.shared_models import SharedModels

# Seconds between deletions of visitors' images, and the age of what is deleted.
DELETE_CACHE = (600, 3600)
# Of the visitor's machine.
FONTS, MONO = ('system-ui', 'sans-serif'), ('ui-monospace', 'monospace')


def file_size(text: str) -> str:
    """A size as Gradio reads it."""
    if not re.fullmatch('[1-9][0-9]*[kmg]?b', text.lower()):
        raise argparse.ArgumentTypeError(f'{text!r}: expected one like 500kb or 20mb')
    return text.lower()


def file_bytes(size: str) -> int:
    """A size of :func:`file_size` in bytes, as Gradio counts them."""
    import gradio as gr

    number, unit = re.fullmatch(r'(\d+)([kmg]?b)', size).groups()
    return int(number) * getattr(gr.FileSize, unit.upper())


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoints',
        nargs='*',
        metavar='FILE',
        help='the same as --checkpoint FILE...',
    )
    parser.add_argument(
        '--checkpoint',
        nargs='+',
        default=[],
        metavar='FILE',
        help='checkpoint files, work dirs (their best checkpoint, else their last), '
        'exported folders, or configs of ZeroShotGrounding, which needs no checkpoint '
        '(no default: at least one)',
    )
    parser.add_argument(
        '--config', type=Path, help='config file (default: the one in the checkpoint)'
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to serve at (default: %(default)s)',
    )
    parser.add_argument(
        '--port',
        type=int,
        default=7860,
        help='port to serve at (default: %(default)s)',
    )
    parser.add_argument(
        '--device', help='device of the models (default: a GPU, if there is one)'
    )
    limits = parser.add_argument_group('limits for visitors')
    for name, default, what in (
        ('--max-pixels', Limits.pixels, 'most pixels of an image'),
        ('--max-expressions', Limits.expressions, 'most expressions for an image'),
        ('--queue', 16, 'most requests that wait'),
    ):
        limits.add_argument(
            name, type=int, default=default, help=f'{what} (default: %(default)s)'
        )
    limits.add_argument(
        '--max-upload',
        type=file_size,
        default='20mb',
        help='largest size of a file (default: %(default)s)',
    )
    limits.add_argument(
        '--max-stored',
        type=file_size,
        default='1gb',
        help='largest size of all files at a time, drawn images included (default: '
        '%(default)s)',
    )
    args = parser.parse_args()
    args.checkpoint = [*args.checkpoints, *args.checkpoint]
    if not args.checkpoint:
        parser.error('the following arguments are required: --checkpoint')
    if args.config and len(args.checkpoint) > 1:
        parser.error('--config is for one checkpoint; several must hold their own.')
    if min(args.max_pixels, args.max_expressions, args.queue) < 1:
        parser.error('--max-pixels, --max-expressions and --queue are at least 1.')
    return args


def build_page(
    models: SharedModels,
    limits: Limits,
    examples: Sequence[tuple[Path, Sequence[str]]],
    max_upload: str,
    queue: int,
    folder: Path,
    stored: int = ByteLimits.stored,
) -> gr.Blocks:
    """The page: image and expressions on the left, predictions on the right.

    Files are read from ``folder`` alone, where the page stores what is uploaded; no
    request is taken while it holds more than ``stored`` bytes.
    """
    import gradio as gr

    from projects.clip_vg.apis.web import WrongInput, ground, read_image, stored_bytes

    def uploaded(payload: Any) -> str | None:
        """The path of an uploaded file; a request may name any."""
        if not payload or not payload.path:
            return None
        path = Path(payload.path).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise gr.Error('Only uploaded files are read.', print_exception=False)
        return str(path)

    def check(path: str | None) -> str | None:
        """Take a bad file away again."""
        try:
            read_image(path, limits)
        except WrongInput as wrong:
            gr.Warning(html.escape(str(wrong)))
            return None
        return gr.skip()

    def predict(path: str | None, text: str | None, name: str) -> tuple:
        try:
            if stored_bytes(folder) > stored:
                raise WrongInput(
                    'The server stores no further files now. Try again in an hour.'
                )
            return ground(models, limits, name, path, text)
        except WrongInput as wrong:
            gr.Warning(html.escape(str(wrong)))
            return None, ''
        except Exception:  # what it is concerns the operator, not the visitor
            logging.exception('Inference with %s', name)
            raise gr.Error(
                'The server failed to predict. Its log has the reason.',
                print_exception=False,
            ) from None

    names = list(models.checkpoints)
    with gr.Blocks(
        title='CLIP-VG: ground an image',
        analytics_enabled=False,
        delete_cache=DELETE_CACHE,
    ) as page:
        gr.Markdown(
            f'# Ground an image\nDrop an image (at most {max_upload}), type what to '
            'look for, and see where it is.'
        )
        with gr.Row(equal_height=False):
            with gr.Column():
                image = gr.Image(
                    label='Image',
                    type='filepath',
                    sources=['upload', 'clipboard'],
                    height=300,
                    elem_id='image',
                )
                # Gradio would open and copy the file, and say no more than "Error" if
                # that fails.
                image.preprocess = uploaded
                image.async_move_resource_to_block_cache = as_it_is
                text = gr.Textbox(
                    label='Expressions',
                    info=f'One a line, at most {limits.expressions}. '
                    'Shift + Enter runs it, too.',
                    placeholder='the man on the left\nred car',
                    lines=4,
                    max_lines=limits.expressions,
                    elem_id='expressions',
                )
                chosen = gr.Dropdown(
                    names, value=names[0], label='Checkpoint', elem_id='checkpoint'
                )
                button = gr.Button('Ground', variant='primary', elem_id='ground')
                shown = gr.Examples(
                    [[str(path), '\n'.join(texts)] for path, texts in examples],
                    [image, text],
                    label='Examples',
                    elem_id='examples',
                )
            with gr.Column():
                drawn = gr.Image(
                    label='Prediction',
                    format='png',
                    buttons=['download', 'fullscreen'],
                    interactive=False,
                    elem_id='prediction',
                )
                table = gr.HTML(elem_id='table')
        given, results = [image, text, chosen], [drawn, table]
        one_by_one = dict(
            concurrency_limit=1, concurrency_id='predict', scroll_to_output=True
        )
        gr.on([button.click, text.submit], predict, given, results, **one_by_one)
        shown.load_input_event.then(predict, given, results, **one_by_one)
        image.upload(check, image, image, show_progress='hidden')
    # Requests that pass the queue by would all run at once.
    return page.queue(max_size=queue, api_open=False)


async def as_it_is(path: str) -> str:
    """Instead of a copy of an uploaded file, which is gone if it was deleted."""
    return path


async def refuse_address(url: str, cache_dir: str) -> NoReturn:  # noqa: ARG001
    """Instead of fetching what a request names in place of an uploaded file."""
    import gradio as gr

    raise gr.Error('Only uploaded files are read.', print_exception=False)


def main() -> None:
    """Serve."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    logging.getLogger('httpx').setLevel(logging.WARNING)
    # Gradio uses names that Starlette is about to drop, at every request.
    warnings.filterwarnings('ignore', module='gradio')
    args = parse_args()
    try:
        import gradio as gr
    except ImportError as error:
        raise SystemExit("The page needs Gradio: pip install -e '.[web]'") from error
    from starlette.middleware import Middleware

    from projects.clip_vg.apis.shared_models import SharedModels, name_checkpoints
    from projects.clip_vg.apis.web import LOOPBACK, Guard, make_examples

    limits = Limits(args.max_pixels, args.max_expressions)
    models = SharedModels(name_checkpoints(args.checkpoint), args.config, args.device)
    gr.processing_utils.async_ssrf_protected_download = refuse_address
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix='clip_vg_page_') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        examples = make_examples(Path(folder))
        byte_limits = ByteLimits(
            upload=file_bytes(args.max_upload),
            # Six bytes a character, as JSON escapes it, and what is around.
            body=10_000 + 6 * limits.expressions * limits.characters,
            stored=file_bytes(args.max_stored),
        )
        page = build_page(
            *(models, limits, examples, args.max_upload, args.queue),
            *(Path(folder), byte_limits.stored),
        )
        hosts = LOOPBACK if args.host in LOOPBACK else None
        guard = Middleware(
            Guard, hosts=hosts, byte_limits=byte_limits, folder=Path(folder)
        )
        try:
            _, url, _ = page.launch(
                server_name=args.host,
                server_port=args.port,
                max_file_size=args.max_upload,
                theme=gr.themes.Default(font=FONTS, font_mono=MONO),
                css_paths=Path(__file__).with_name('app.css'),
                footer_links=[],
                app_kwargs=dict(middleware=[guard]),
                share=False,
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:  # Gradio tells of variables that are not for this
            raise SystemExit(
                f'{args.host}:{args.port} cannot be served: the port is taken, or the '
                'address is not of this machine. Give another --port or --host.'
            ) from error
        logging.info('%s', url)
        page.block_thread()


if __name__ == '__main__':
    run_command(main)
