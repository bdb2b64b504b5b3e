"""The page of errors, as a library and as a command."""

import base64
import io
import json
import math
import re
import runpy
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from projects.clip_vg_core.visualization.error_report import (
    find_image,
    image_sizes,
    write_error_report,
)
from projects.clip_vg_core.visualization.page import shorten

from ...helpers import ROOT
from ...helpers.commands import tool
from ...helpers.results import answer


def run_of(folder, count=40, seed=0, **changes):
    """Predictions by chance on four images."""
    rng = np.random.default_rng(seed)
    return [
        answer(
            i,
            image=str(folder / f'{i % 4}.png'),
            text=f'{("left", "red", "big")[i % 3]} man {i}',
            iou=float(rng.random() if rng.random() < 0.7 else 0.0),
            split=('testA', 'testB')[i % 2],
            score=None,
            **changes,
        )
        for i in range(count)
    ]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for number in range(4):
        Image.new('RGB', (60, 40), (40 * number, 90, 90)).save(folder / f'{number}.png')
    return folder


def page_of(out, *args, **more):
    return write_error_report(out, *args, **more).read_text(encoding='utf-8')


def cards(page):
    """Of each kind of examples, the expressions shown."""
    parts = re.split(r'<h2 id="e\d+">', page)[1:]
    return {
        part.split('</h2>')[0]: re.findall(r'<figure.*?<b>(.*?)</b>', part, re.DOTALL)
        for part in parts
    }


def test_the_page_needs_no_other_file(folder, tmp_path):
    page = page_of(tmp_path / 'report.html', dict(run=run_of(folder)))
    assert set(re.findall(r'src="(data:image/\w+;base64,|[^"]*)', page)) == {
        'data:image/png;base64,',
        'data:image/jpeg;base64,',
    }
    assert not re.findall(r'https?://|<link|<script|@import|url\(', page)
    assert [path.name for path in tmp_path.iterdir() if path != folder] == [
        'report.html'
    ]


def test_examples_are_the_worst_misses_and_the_best_hits(folder, tmp_path):
    results = run_of(folder)
    by_iou = {result['text']: result['iou'] for result in results}
    shown = cards(page_of(tmp_path / 'a.html', dict(run=results), examples=4))
    ranked = sorted(by_iou.values())
    assert [by_iou[text] for text in shown['Worst']] == ranked[:4]
    assert [by_iou[text] for text in shown['Best']] == ranked[:-5:-1]
    again = cards(page_of(tmp_path / 'b.html', dict(run=results), examples=4))
    assert again == shown
    others = cards(page_of(tmp_path / 'c.html', dict(run=results), examples=4, seed=1))
    assert others['Worst'] != shown['Worst']  # other ones of IoU 0
    for i, result in enumerate(results):
        result['score'] = i / len(results)
    shown = cards(page_of(tmp_path / 'd.html', dict(run=results), examples=3))
    zeros = [r['text'] for r in results if r['iou'] == 0]
    assert shown['Worst'] == zeros[:-4:-1]  # the surest of them


def test_a_comparison_shows_what_is_gained_and_lost(folder, tmp_path):
    one, other = run_of(folder, 30), run_of(folder, 30, seed=1)
    runs = dict(before=one, after=other)
    page = page_of(tmp_path / 'a.html', runs, examples=15)
    shown = cards(page)
    hits = [{r['text'] for r in run if r['iou'] >= 0.5} for run in (one, other)]
    assert set(shown['Gained']) == hits[1] - hits[0]
    assert set(shown['Lost']) == hits[0] - hits[1]
    assert f'{len(hits[1] - hits[0])} gained' in page
    assert f'{len(hits[0] - hits[1])} lost' in page
    change = {a['text']: b['iou'] - a['iou'] for a, b in zip(one, other, strict=True)}
    changes = [change[text] for text in shown['Gained']]
    assert changes == sorted(changes, reverse=True)


def test_long_names_are_shortened_but_for_one_place(folder, tmp_path):
    names = [f'work_dirs/{"x" * 90}/epoch_{number}.pth' for number in (1, 2)]
    short = [shorten(name) for name in names]
    assert all(len(name) == 32 and name.endswith('.pth') for name in short)
    assert shorten('a' * 32) == 'a' * 32 and len({*short}) == 2
    results = run_of(folder, 30), run_of(folder, 30, seed=1)
    page = page_of(tmp_path / 'a.html', dict(zip(names, results, strict=True)))
    assert [page.count(name) for name in names] == [1, 1]
    assert all(page.count(name) > 5 for name in short)
    # Names that are the same when shortened are numbered.
    alike = [f'work_dirs/{middle * 40}/{"epoch" * 8}.pth' for middle in 'ab']
    page = page_of(tmp_path / 'b.html', dict(zip(alike, results, strict=True)))
    assert [page.count(f'From “{number}: work') for number in (1, 2)] == [1, 0]


@pytest.mark.parametrize('broken', [b'', b'no picture', None])
def test_a_missing_image_takes_nothing_else_away(folder, tmp_path, broken):
    path = folder / '2.png'
    if broken is None:
        path.unlink()
    else:
        path.write_bytes(broken)
    results = run_of(folder)
    page = page_of(tmp_path / 'a.html', dict(run=results), examples=100)
    assert f'1 images were not found or\ncannot be read</b>, the first: {path}' in page
    assert page.count('class="none"') == 10
    assert page.count('data:image/jpeg') == 30
    assert 'image not found</td>' in page  # its boxes have no share


def test_without_any_image_the_page_is_made(folder, tmp_path):
    results = run_of(folder)
    for number, result in enumerate(results):
        result['image'] = None
        result['gt_bbox'] = [0, 0, number, number]
    page = page_of(tmp_path / 'a.html', dict(run=results))
    assert '&lt; 32 px' in page
    assert 'data:image/jpeg' not in page


def test_names_and_expressions_are_not_read_as_code(folder, tmp_path):
    results = run_of(folder)
    results[0].update(iou=0.0, score=1.0)  # the first that is shown
    results[0]['text'] = '<script>alert("x")</script> {{ 1 + 1 }} $\\frac$ $_$'
    results[1]['split'] = '$_$ <b>'
    runs = {'$\\a$ <i>': results, '$_$': run_of(folder, seed=1)}
    page = page_of(tmp_path / 'a.html', runs, examples=1)
    assert '<script' not in page
    assert '<i>' not in page
    assert '&lt;script&gt;' in page
    assert '{{ 1 + 1 }}' in page


def test_all_hits_all_misses_and_one_prediction(folder, tmp_path):
    for name, ious in (('hits', [1.0] * 9), ('misses', [0.0] * 9), ('one', [0.7])):
        results = run_of(folder, len(ious))
        for result, iou in zip(results, ious, strict=True):
            result['iou'] = iou
        page = page_of(
            tmp_path / f'{name}.html', dict(run=results, again=results), examples=1
        )
        assert '0 gained' in page


def test_scores_get_a_plot_if_they_differ(folder, tmp_path):
    results = run_of(folder)
    del results[0]['score']  # as of a model that predicts none
    page = page_of(tmp_path / 'a.html', dict(run=results))
    assert 'id="score"' not in page
    assert ', score' not in page
    for result in results:
        result['score'] = result['iou']
    page = page_of(tmp_path / 'b.html', dict(run=results))
    assert 'id="score"' in page
    assert '100.0 % of pairs' in page
    (drawn,) = re.findall(r'data:image/svg\+xml;base64,([\w+/=]+)"', page)
    root = ElementTree.fromstring(base64.b64decode(drawn))
    assert root.tag.endswith('svg')
    # The same results make the same page.
    assert page_of(tmp_path / 'c.html', dict(run=results)) == page


def test_large_images_do_not_make_a_large_page(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / '0.jpg')
    results = [dict(r, image=str(tmp_path / '0.jpg')) for r in run_of(tmp_path)]
    path = write_error_report(tmp_path / 'a.html', dict(one=results, other=results))
    assert path.stat().st_size < 5_000_000


def test_boxes_lie_where_they_should_on_a_card(tmp_path):
    Image.new('RGB', (1360, 680), 'white').save(tmp_path / 'a.png')
    result = answer(
        image=str(tmp_path / 'a.png'),
        score=None,
        **dict(bbox=[400, 200, 800, 400], gt_bbox=[0, 0, 1, 1], iou=1.0),
    )
    page = page_of(tmp_path / 'a.html', dict(run=[result]))
    (card,) = re.findall(r'data:image/jpeg;base64,([^"]*)', page)
    card = base64.b64decode(card)
    pixels = np.asarray(Image.open(io.BytesIO(card)).convert('RGB')).astype(int)
    assert pixels.shape == (170, 340, 3)
    green = pixels[..., 1] - pixels[..., 0] > 100
    rows, columns = np.nonzero(green)
    edges = columns.min(), rows.min(), columns.max(), rows.max()
    np.testing.assert_allclose(edges, (100, 50, 200, 100), atol=3)


def test_moved_images_are_found_by_the_longest_end(tmp_path):
    for name in ('b/1.png', '1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (3, 5)).save(tmp_path / name)
    assert find_image('/data/a/b/1.png', tmp_path) == tmp_path / 'b/1.png'
    assert find_image('c/1.png', tmp_path) == tmp_path / '1.png'
    assert find_image('../1.png', tmp_path / 'b') == tmp_path / 'b/1.png'
    assert find_image('2.png', tmp_path) is None
    assert find_image(None, tmp_path) is None
    sizes = image_sizes(['c/1.png', '2.png', None], tmp_path)
    assert sizes['c/1.png'] == (3, 5)
    assert math.isnan(sizes['2.png'][0])
    assert math.isnan(sizes[None][0])


def save(path, results):
    lines = [json.dumps({k: v for k, v in r.items() if k != 'score'}) for r in results]
    path.write_text('\n'.join(lines))
    return path


@pytest.fixture
def report(monkeypatch):
    """The command, in this process."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, args)])
        runpy.run_path(str(ROOT / 'tools/analysis/report.py'), run_name='__main__')

    return run


def test_the_command(folder, tmp_path):
    one = save(tmp_path / 'one.jsonl', run_of(folder))
    other = save(tmp_path / 'other.jsonl', run_of(folder, seed=1))
    moved = folder.rename(tmp_path / 'moved')
    out = tmp_path / 'pages' / 'report.html'
    done = tool(
        *('tools/analysis/report.py', one, '--compare', other, '--images', moved),
        *('--examples', 3, '--names', 'before', 'after', '--out', out),
    )
    assert str(out) in done.stderr
    page = out.read_text(encoding='utf-8')
    assert 'From “before” to “after”' in page
    assert 'were not found' not in page
    assert page.count('data:image/jpeg') == 6 * 3


def test_the_command_names_runs_and_drops_what_one_lacks(folder, tmp_path, report):
    for name, count, seed in (('a', 40, 0), ('b', 30, 1)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / 'results.jsonl', run_of(folder, count, seed))
    out = tmp_path / 'report.html'
    files = (tmp_path / 'a/results.jsonl', '--compare', tmp_path / 'b/results.jsonl')
    with pytest.raises(SystemExit, match='10 only in the first, 0 only in the second'):
        report(*files, '--out', out)
    assert not out.exists()
    report(*files, '--out', out, '--allow-missing', '--examples', 0)
    page = out.read_text(encoding='utf-8')
    assert '30 expressions' in page
    assert '<h1>Errors: a and b</h1>' in page
    with pytest.raises(SystemExit, match='expected 2 different names'):
        report(*files, '--out', out, '--names', 'same', 'same')


def test_the_command_leaves_nothing_of_a_damaged_run(folder, tmp_path, report):
    path = save(tmp_path / 'a.jsonl', run_of(folder))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(SystemExit, match=r'a\.jsonl, line 40 is not valid JSON'):
        report(path, '--out', tmp_path / 'pages' / 'report.html')
    with pytest.raises(SystemExit, match='no such folder'):
        report(path, '--out', tmp_path / 'a.html', '--images', tmp_path / 'none')
    assert {p.name for p in tmp_path.iterdir()} == {'a.jsonl', 'pictures'}
