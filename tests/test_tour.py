"""The notebook: its commands are ones that the scripts take, and it runs."""

import ast
import json
import shlex

import pytest

from .helpers import ROOT
from .helpers.pages import load

NOTEBOOK = ROOT / 'demo/tour.ipynb'
CELLS = json.loads(NOTEBOOK.read_text())['cells']
SOURCES = [''.join(c['source']) for c in CELLS if c['cell_type'] == 'code']
OUT = "'work_dirs/tour'"


def commands():
    """What the cells give to ``run``, as words."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'run':
                text = eval(ast.unparse(node.args[0]), dict(tested='tested.json'))
                yield shlex.split(text.format(out='tour'))


def test_it_is_a_notebook_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
    ids = [cell['id'] for cell in CELLS]
    assert len(set(ids)) == len(ids) > 12
    for cell in CELLS:
        assert cell['cell_type'] == 'markdown' or (
            cell['outputs'] == [] and cell['execution_count'] is None
        )
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.parametrize('words', commands(), ids=lambda words: words[0])
def test_a_command_is_one_that_its_script_takes(words, monkeypatch, caplog):
    script, *args = words
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools set it
    monkeypatch.setattr('sys.argv', [script, *args])
    load(script).parse_args()
    assert not caplog.records  # of options under their earlier names
    for word in args:
        name = word.rpartition('=')[2]
        if name.startswith(('configs/', 'demo/')):
            assert (ROOT / name).is_file(), name


def test_its_links_lead_somewhere():
    texts = [''.join(c['source']) for c in CELLS if c['cell_type'] == 'markdown']
    links = [part.partition(')')[0] for text in texts for part in text.split('](')[1:]]
    assert len(links) > 8
    assert [link for link in links if not (ROOT / 'demo' / link).is_file()] == []


@pytest.mark.slow
def test_it_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch):
    """Two minutes of a processor; Jupyter is not needed for it."""
    monkeypatch.chdir(ROOT)  # and back: the notebook changes it
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    whole = '\n'.join(SOURCES)
    assert whole.count(OUT) == 1
    namespace = {}
    for source in SOURCES:
        exec(source.replace(OUT, repr(str(tmp_path / 'tour'))), namespace)
    out = tmp_path / 'tour'
    boxes = namespace['boxes']
    assert len(boxes) == 2 and all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in boxes)
    rows = [json.loads(line) for line in (out / 'test/results.jsonl').open()]
    assert len(rows) == 600
    # Fine-tuned from the demo, which reaches 0.94 on these images.
    assert sum(row['iou'] >= 0.5 for row in rows) > 0.85 * len(rows)
    search = json.loads((out / 'search/curriculum.json').read_text())
    (source,), (trial,) = search['sources'], search['trials']
    assert 0 < trial['labels'] < source['labels']
    assert trial['score'] > search['validation']['random_candidate']
    pages = ['errors.html', 'pseudo/template.jsonl.html', 'search/report.html']
    for page in pages:
        assert '<iframe' in namespace['Page'](out / page)._repr_html_()
    published = namespace['published']
    own = namespace['GroundingInferencer'](out / 'train', device='cpu')
    answers = [i('demo/shapes.jpg', 'star')['predictions'] for i in (published, own)]
    assert answers[0] == answers[1]
    assert 'acc_0.5' in (out / 'published/README.md').read_text()
