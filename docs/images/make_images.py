"""Make the images of README.md and docs/ again: ``make images``.

Runs the commands that users run, on the model of ``demo/`` and on what ``make
tutorial`` left, and saves what their pages show in Debian's Chromium (``apt-get
install chromium``). Everything in the images is drawn by this project.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(__file__).resolve().parent
CHECKPOINT = 'demo/clip_vg_tiny.pth'
EXPRESSIONS = [
    'big star',
    'red triangle',
    'leftmost star',
    'star right of the triangle',
]
TUTORIAL = ROOT / 'work_dirs/clip_vg_synthetic_multi_source_valley'


def run(*command: str | Path) -> None:
    """Run a command of this repository, with its Python, from its root."""
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    words = [sys.executable, *map(str, command)]
    subprocess.run(words, cwd=ROOT, env=env, check=True)


def save(image: Image.Image, name: str, width: int) -> None:
    """Write a small JPEG, at most so wide, in which thin lines keep their colours."""
    image = image.convert('RGB')
    image.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
    image.save(OUT / name, quality=85, subsampling=0, optimize=True)


def shrink(path: Path, name: str, width: int = 900) -> None:
    """Write a smaller copy of an image."""
    with Image.open(path) as image:
        save(image, name, width)


def screenshot_page(browser: Browser, page: Path, name: str, height: int = 800) -> None:
    """Save the upper end of an HTML file."""
    tab = browser.new_page(viewport=dict(width=1000, height=height))
    tab.goto(page.resolve().as_uri())
    save(Image.open(io.BytesIO(tab.screenshot())), name, 900)
    tab.close()


def screenshot_web_page(browser: Browser) -> None:
    """Serve the demo's page, ground some expressions, and save what it shows."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    words = ['demo/app.py', '--checkpoint', CHECKPOINT, '--port', str(port)]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    server = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env)
    try:
        url = f'http://127.0.0.1:{port}/'
        for _ in range(180):
            try:
                urllib.request.urlopen(url).close()
                break
            except urllib.error.URLError:
                time.sleep(1)
        tab = browser.new_page(viewport=dict(width=1200, height=860))
        tab.goto(url)
        tab.set_input_files('#image input[type=file]', ROOT / 'demo/shapes.jpg')
        tab.locator('#image img').wait_for()
        tab.fill('#expressions textarea', '\n'.join(EXPRESSIONS))
        tab.click('#ground')
        tab.locator('#table tbody tr', has_text=EXPRESSIONS[-1]).wait_for()
        tab.wait_for_timeout(2000)
        save(Image.open(io.BytesIO(tab.screenshot())), 'web_page.jpg', 900)
    finally:
        server.terminate()
        server.wait()


def curriculum() -> None:
    """Selected labels above, dropped ones below."""
    paths = [
        TUTORIAL / f'report/examples_template_{what}.png'
        for what in ('kept', 'dropped')
    ]
    images = [Image.open(path).convert('RGB') for path in paths]
    size = max(i.width for i in images), sum(i.height for i in images)
    whole = Image.new('RGB', size, 'white')
    whole.paste(images[0])
    whole.paste(images[1], (0, images[0].height))
    save(whole, 'curriculum.jpg', 900)


def main() -> None:
    """Make all of them."""
    work = Path('work_dirs/images')  # relative: pages show it
    test = work / 'test'
    run(
        *('demo/ground.py', 'demo/shapes.jpg', *EXPRESSIONS),
        *('--checkpoint', CHECKPOINT, '--out-dir', work / 'ground'),
    )
    shrink(ROOT / work / 'ground/shapes.png', 'demo.jpg', 640)
    run(
        *('tools/test.py', 'configs/clip_vg_synthetic.py', CHECKPOINT),
        *('--work-dir', test, '--cfg-options'),
        f'test_evaluator.out_file={test}/results.jsonl',
    )
    grid = test / 'grid.png'
    run(
        *('tools/draw_results.py', test / 'results.jsonl', '--out', grid),
        *('--examples', '8'),
    )
    shrink(ROOT / grid, 'results.jpg')
    report = work / 'errors.html'
    run(
        *('tools/analysis/report.py', test / 'results.jsonl', '--out', report),
        *('--names', CHECKPOINT),
    )
    curriculum()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which('chromium'))
        screenshot_page(browser, ROOT / report, 'error_report.jpg')
        screenshot_page(browser, TUTORIAL / 'report.html', 'curriculum_report.jpg')
        labels = ROOT / 'data/photographs/pseudo/template.jsonl.html'
        screenshot_page(browser, labels, 'labels.jpg')
        screenshot_web_page(browser)
        browser.close()
    shutil.rmtree(ROOT / work)


if __name__ == '__main__':
    main()
