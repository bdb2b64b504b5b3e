"""The page of ``demo/app.py`` in a real browser: Debian's Chromium, without a window.

``CLIP_VG_SCREENSHOTS`` names a folder for what was seen.
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

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.apis.web import fit_to_screen
from projects.clip_vg_core.visualization.boxes import color_of

from ..helpers import ROOT
from ..helpers.models import save_tiny

pytest.importorskip('gradio')
playwright = pytest.importorskip('playwright.sync_api')
expect = playwright.expect
pytestmark = pytest.mark.browser

ASKED = ['red circle', 'the star on the left']
# The most, on a machine that may be busy: a start imports PyTorch and Gradio.
START, ANSWER = 180, 60


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    return {
        f'{name}/tiny.pth': save_tiny(folder / name / 'tiny.pth', seed, spread=10)
        for seed, name in enumerate(('one', 'two'))
    }


@pytest.fixture(scope='module')
def address(checkpoints, tmp_path_factory):
    """Where the command serves; it is stopped, and has to clean up, at the end."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp('server')
    command = [
        *(sys.executable, 'demo/app.py', '--checkpoint', *checkpoints.values()),
        *('--port', port, '--device', 'cpu', '--max-expressions', 4),
        *('--max-pixels', 100_000, '--max-upload', '60kb'),
    ]
    env = dict(os.environ, TMPDIR=str(folder), PYTHONPATH=str(ROOT))
    with (folder / 'log').open('w') as log:
        server = subprocess.Popen(
            [str(word) for word in command], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    url = f'http://127.0.0.1:{port}/'
    try:
        wait_for_server(url, server, folder / 'log')
        yield url
    finally:
        server.terminate()
        server.wait(ANSWER)
    assert not list(folder.glob('clip_vg_page_*'))
    assert 'Traceback' not in (folder / 'log').read_text()


def wait_for_server(url, server, log):
    end = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except urllib.error.URLError:
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)


@pytest.fixture(scope='module')
def browser():
    path = shutil.which('chromium')
    assert path, 'no chromium: on Debian, apt-get install chromium'
    expect.set_options(timeout=ANSWER * 1000)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page as another visitor; nothing may be fetched from elsewhere."""
    contexts, asked = [], []

    def visit():
        context = browser.new_context(viewport=dict(width=1280, height=1000))
        context.set_default_timeout(ANSWER * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on('request', lambda request: asked.append(request.url))
        page.goto(address)
        expect(page.locator('#ground')).to_be_enabled()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert all(url.startswith((address, 'data:', 'blob:')) for url in asked)


@pytest.fixture
def shoot(tmp_path):
    """Saves what a page looks like, after what moves in has come to rest."""
    folder = Path(os.environ.get('CLIP_VG_SCREENSHOTS') or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(page, name):
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f'{name}.png', full_page=True)

    return shoot


@pytest.fixture
def picture(shapes):
    return sorted((shapes / 'images').glob('*.jpg'))[0]


def give(page, picture, lines):
    page.set_input_files('#image input[type=file]', picture)
    expect(page.locator('#image img')).to_be_visible()
    page.fill('#expressions textarea', '\n'.join(lines))


def table_of(page, lines):
    """The rows of the answer, once it is there."""
    rows = page.locator('#table tbody tr')
    expect(rows).to_contain_text(lines)
    return [row.locator('td').all_inner_texts() for row in rows.all()]


def drawn(page):
    """Pixels of the answered picture."""
    source = page.locator('#prediction img').get_attribute('src')
    with Image.open(io.BytesIO(page.request.get(source).body())) as image:
        return np.asarray(image.convert('RGB'))


def expected_rows(checkpoint, picture, lines):
    (answer,) = GroundingInferencer(checkpoint, device='cpu')(picture, lines)[
        'predictions'
    ]
    return answer['bboxes'], [
        [str(number), text, *(f'{edge:.1f}' for edge in box)]
        for number, (text, box) in enumerate(
            zip(lines, answer['bboxes'], strict=True), 1
        )
    ]


def said(page, message, look=lambda: None):
    """Waits for a message, has a look, and closes it."""
    box = page.locator('.toast-body')
    expect(box).to_contain_text(message)
    look()
    box.locator('.toast-close').click()
    expect(box).to_have_count(0)


def test_a_picture_is_answered_by_the_chosen_checkpoint(
    visit, shoot, picture, checkpoints
):
    page = visit()
    shoot(page, 'start')
    give(page, picture, ASKED)
    for name, path in checkpoints.items():
        page.click('#checkpoint input')
        page.get_by_role('option', name=name).click()
        page.click('#ground')
        boxes, rows = expected_rows(path, picture, ASKED)
        expect(page.locator('#table')).to_contain_text(rows[0][2])
        found = [[cell.strip() for cell in row] for row in table_of(page, ASKED)]
        assert found == rows
        with Image.open(picture) as file:
            shown, scaled = fit_to_screen(np.asarray(file.convert('RGB')), boxes)
        pixels, height = drawn(page), shown.shape[0]
        for number, (left, top, right, bottom) in enumerate(scaled.round().astype(int)):
            own = (pixels == color_of(number)).all(-1)
            assert own[height:].any()  # the legend
            sides = own[top:bottom, left], own[bottom - 1, left:right]
            assert max(side.mean() for side in sides) > 0.5
        shoot(page, f'answer_{name.split("/")[0]}')


def test_an_example_is_answered_by_a_click(visit, shoot):
    page = visit()
    page.locator('#examples tbody tr').nth(1).click()
    rows = page.locator('#table tbody tr')
    expect(rows).to_have_count(3)
    lines = page.locator('#expressions textarea').input_value().splitlines()
    assert [row[1] for row in table_of(page, lines)] == lines
    shoot(page, 'example')


def test_files_that_are_refused(visit, shoot, address, picture, tmp_path):
    page, whole = visit(), picture.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'heavy.png')
    Image.new('RGB', (400, 300)).save(tmp_path / 'large.png')
    for name, data, message in (
        ('notes.txt', b'no picture\n', 'Invalid file type only image/* allowed'),
        ('notes.jpg', b'no picture\n', 'notes.jpg cannot be read as an image'),
        ('empty.png', b'', 'empty.png is empty'),
        ('half.jpg', whole[: len(whole) // 2], 'half.jpg is broken'),
        ('large.png', None, 'large.png is too large: it has 400 x 300 pixels'),
        ('heavy.png', None, 'exceed the maximum allowed size of 60.0 Kb'),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        page.set_input_files('#image input[type=file]', tmp_path / name)
        said(page, message, lambda name=name: shoot(page, f'refused_{name}'))
        expect(page.locator('#image img')).to_have_count(0)
    heavy = dict(
        name='heavy.png',
        mimeType='image/png',
        buffer=(tmp_path / 'heavy.png').read_bytes(),
    )
    past = page.request.post(f'{address}gradio_api/upload', multipart=dict(files=heavy))
    assert past.status == 413
    give(page, picture, ASKED)  # the page goes on
    page.click('#ground')
    table_of(page, ASKED)


def test_questions_that_are_refused(visit, shoot, picture):
    page = visit()
    page.fill('#expressions textarea', 'star')
    page.click('#ground')
    said(page, 'Drop an image first')
    for lines, message in (
        (['', ' '], 'Type what to look for'),
        (['a', 'b', 'c', 'd', 'e'], 'There are 5 expressions; at most 4'),
        (['a', 'b' * 201], 'has 201 characters; at most 200'),
    ):
        give(page, picture, lines)
        page.click('#ground')
        said(page, message, lambda: shoot(page, 'refused_question'))
        page.locator('#image button[aria-label="Remove Image"]').click()
    expect(page.locator('#table tr')).to_have_count(0)


def test_what_is_typed_is_shown_as_text(visit, picture):
    page = visit()
    hostile = '<img src=x onerror="window.hit = 1"><b>star</b>'
    give(page, picture, [hostile])
    page.click('#ground')
    assert table_of(page, [hostile])[0][1] == hostile
    assert page.evaluate('window.hit') is None


@pytest.mark.parametrize('width', [1280, 390])
def test_a_long_expression_leaves_all_columns_on_the_screen(visit, picture, width):
    page = visit()
    page.set_viewport_size(dict(width=width, height=900))
    lines = ['star', 'the star ' + 'that is right of the circle ' * 6]
    give(page, picture, lines)
    page.click('#ground')
    rows = table_of(page, [line.strip() for line in lines])
    assert [len(row) for row in rows] == [6, 6]
    box = page.locator('#table tbody tr').nth(1).locator('td').last.bounding_box()
    assert box['x'] + box['width'] <= width
    first, second = (
        page.locator('#table tbody tr').nth(n).bounding_box() for n in (0, 1)
    )
    assert second['height'] > 2 * first['height']  # the expression is wrapped


def test_two_visitors_at_once_get_their_own_answers(visit, shoot, shapes):
    pictures = sorted((shapes / 'images').glob('*.jpg'))[1:3]
    pages = [visit(), visit()]
    asked = [['blue square'], ['green star', 'top object']]
    for page, picture, lines in zip(pages, pictures, asked, strict=True):
        give(page, picture, lines)
    for page in pages:
        page.click('#ground')
    for page, picture, lines in zip(pages, pictures, asked, strict=True):
        assert len(table_of(page, lines)) == len(lines)
        with Image.open(picture) as file:
            expect(page.locator('#table caption')).to_contain_text(
                f'{file.width} x {file.height} pixels'
            )
    shoot(pages[1], 'second_visitor')
