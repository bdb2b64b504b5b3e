"""The page of ``demo/app.py`` without a browser; tests/browser has the rest."""

import json
import runpy
import time
import urllib.error
import urllib.request

import pytest

from projects.clip_vg.apis.shared_models import SharedModels, name_checkpoints
from projects.clip_vg.apis.web import Limits, make_examples

from .helpers import ROOT
from .helpers.models import save_tiny

gradio = pytest.importorskip('gradio')
gradio_client = pytest.importorskip('gradio_client')


@pytest.fixture(scope='module')
def app():
    return runpy.run_path(str(ROOT / 'demo' / 'app.py'))


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    checkpoints = [save_tiny(folder / name / 'a.pth', 3) for name in ('one', 'two')]
    return SharedModels(name_checkpoints(checkpoints), device='cpu')


@pytest.fixture
def examples(tmp_path):
    return make_examples(tmp_path, 2)


@pytest.fixture
def page(app, models, examples, tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
    page = app['build_page'](models, Limits(), examples, '1mb', 1, tmp_path)
    yield page
    page.close()


@pytest.fixture
def address(page):
    return page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)[1]


@pytest.fixture
def visitor(address):
    return gradio_client.Client(address, verbose=False, download_files=False)


@pytest.fixture
def post(address):
    """Sends inputs made by hand, and returns the events of the response."""

    def post(image, text='star'):
        data = json.dumps(dict(data=[image, text, 'one/a.pth'])).encode()
        url = f'{address}gradio_api/call/predict'
        request = urllib.request.Request(
            url, data, {'Content-Type': 'application/json'}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            event = json.load(response)['event_id']
        with urllib.request.urlopen(f'{url}/{event}', timeout=30) as response:
            return response.read().decode()

    return post


def file_at(path):
    """What a page sends for a file."""
    return dict(path=str(path), meta={'_type': 'gradio.FileData'})


def wait_for(what):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_page_offers_the_checkpoints_and_shares_one_queue(page):
    config = page.get_config_file()
    (dropdown,) = (c for c in config['components'] if c['type'] == 'dropdown')
    names = [name for name, _ in dropdown['props']['choices']]
    assert names == ['one/a.pth', 'two/a.pth']
    assert not dropdown['props'].get('allow_custom_value')
    assert not config['analytics_enabled']
    predicting = [fn for fn in page.fns.values() if fn.name == 'predict']
    assert len(predicting) == 2  # the button, and the examples
    assert {(fn.concurrency_id, fn.concurrency_limit) for fn in predicting} == {
        ('predict', 1)
    }


def test_one_is_predicted_one_waits_and_the_next_is_refused(
    page, models, visitor, examples
):
    path, (text, *_) = examples[0]
    question = gradio_client.handle_file(str(path)), text, 'one/a.pth'
    with models._lock:
        first = visitor.submit(*question, api_name='/predict')
        wait_for(lambda: any(page._queue.active_jobs))
        second = visitor.submit(*question, api_name='/predict')
        wait_for(lambda: len(page._queue) == 1)
        with pytest.raises(Exception, match='Queue is full'):
            visitor.predict(*question, api_name='/predict')
    for job in (first, second):
        _, table = job.result(timeout=30)
        assert text in table


def test_a_checkpoint_that_was_not_given_cannot_be_used(visitor, examples, models):
    path, (text, *_) = examples[0]
    with pytest.raises(Exception, match='not in the list of choices'):
        visitor.predict(
            gradio_client.handle_file(str(path)),
            text,
            str(models.checkpoints['one/a.pth']),
            api_name='/predict',
        )


def test_a_failure_is_logged_and_says_nothing_of_the_server(
    app, examples, tmp_path, caplog
):
    (tmp_path / 'broken.pth').write_text('no checkpoint')
    models = SharedModels(name_checkpoints([tmp_path / 'broken.pth']), device='cpu')
    page = app['build_page'](models, Limits(), examples, '1mb', 1, tmp_path)
    (predict, *_) = (fn.fn for fn in page.fns.values() if fn.name == 'predict')
    path, texts = examples[0]
    with pytest.raises(gradio.Error, match='log') as caught:
        predict(str(path), texts[0], *models.checkpoints)
    assert str(tmp_path) not in str(caught.value)
    assert 'broken.pth' in caplog.text


def test_an_image_that_was_deleted_is_no_failure(post, tmp_path):
    assert '[null, ""]' in post(file_at(tmp_path / 'gone.png'))


def test_files_that_were_not_uploaded_are_not_read(
    app, post, monkeypatch, shapes, tmp_path
):
    image = sorted((shapes / 'images').glob('*.jpg'))[0]
    assert 'event: error' in post(file_at(image))
    # Without `meta`, Gradio does not check a path.
    assert 'Only uploaded files are read' in post(dict(path=str(image)))
    (tmp_path / 'link.jpg').symlink_to(image)
    for path in (tmp_path / 'link.jpg', tmp_path / '..' / image.name):
        assert 'Only uploaded files are read' in post(dict(path=str(path)))
    monkeypatch.setattr(
        gradio.processing_utils,
        'async_ssrf_protected_download',
        app['refuse_address'],
    )
    elsewhere = file_at('http://example.org/a.png')
    assert 'Only uploaded files are read' in post(elsewhere)
    assert 'Only uploaded files are read' in post(None, elsewhere)


def test_the_queue_cannot_be_passed_by(address, examples):
    path, (text, *_) = examples[0]
    data = json.dumps(dict(data=[dict(path=str(path)), text, 'one/a.pth'])).encode()
    for route in (
        *('run/predict', 'gradio_api/run/predict'),
        *('api/predict', 'gradio_api/api/predict'),
    ):
        request = urllib.request.Request(
            f'{address}{route}', data, {'Content-Type': 'application/json'}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code in (401, 404, 405)


def test_a_full_store_predicts_for_nobody(app, models, examples, tmp_path):
    page = app['build_page'](models, Limits(), examples, '1mb', 1, tmp_path, stored=1)
    (predict, *_) = (fn.fn for fn in page.fns.values() if fn.name == 'predict')
    path, texts = examples[0]
    assert predict(str(path), texts[0], 'one/a.pth') == (None, '')


@pytest.mark.parametrize('size', ['7b', '60kb', '20mb', '2gb'])
def test_sizes_in_bytes_are_those_that_gradio_lets_pass(app, size):
    assert app['file_bytes'](size) == gradio.utils._parse_file_size(size)


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ([], '--checkpoint'),
        (['--checkpoint', 'a', 'b', '--config', 'c'], '--config'),
        (['--checkpoint', 'a', '--queue', '0'], '--queue'),
        (['--checkpoint', 'a', '--max-upload', '5 apples'], '5 apples'),
    ],
)
def test_arguments_that_do_not_fit(app, monkeypatch, capsys, arguments, named):
    monkeypatch.setattr('sys.argv', ['app.py', *arguments])
    with pytest.raises(SystemExit):
        app['parse_args']()
    assert named in capsys.readouterr().err.splitlines()[-1]
