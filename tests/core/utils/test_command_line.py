"""Arguments under their earlier names; errors of ours as one message."""

import argparse
import json

import pytest
from mmengine.config import Config

from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.utils import command_line
from projects.clip_vg_core.utils.command_line import parse_command, run_command

from ...helpers import ROOT
from ...helpers.commands import run_script
from ...helpers.configs import runner_config


def ended(main):
    with pytest.raises(SystemExit) as caught:
        run_command(main)
    return str(caught.value.code)


def test_an_error_of_ours_is_its_message(tmp_path):
    path = tmp_path / 'labels.jsonl'
    path.write_text('{"filename": "a.jpg"}\n')
    said = ended(lambda: read_annotations(path))
    assert said.startswith('ValueError: ')
    assert 'labels.jsonl' in said


def test_an_error_from_elsewhere_keeps_its_traceback(tmp_path, monkeypatch):
    for main, kind in (
        (lambda: int('x'), ValueError),
        (lambda: json.loads('{'), ValueError),
        (lambda: Config.fromfile(tmp_path / 'none.py'), FileNotFoundError),
        (lambda: {}['x'], KeyError),
    ):
        with pytest.raises(kind):
            run_command(main)
    monkeypatch.setenv('CLIP_VG_TRACEBACK', '1')
    with pytest.raises(FileNotFoundError):
        run_command(lambda: read_annotations(tmp_path / 'none.jsonl'))


def test_a_model_that_the_hub_cannot_give_is_one_message(tmp_path):
    auto = pytest.importorskip('transformers').AutoTokenizer
    said = ended(
        lambda: auto.from_pretrained(
            'bert-base-uncased', local_files_only=True, cache_dir=tmp_path
        )
    )
    assert 'huggingface.co' in said and 'docs/troubleshooting.md' in said


@pytest.mark.parametrize('workers', [0, 1])
def test_a_missing_image_is_one_message(workers, shapes, sources, tmp_path):
    """Also where a worker of the data loader misses it."""
    cfg = runner_config(shapes, sources, tmp_path / 'run')
    cfg.train_dataloader.num_workers = workers
    cfg.train_dataloader.dataset.data_prefix.img = str(tmp_path / 'nowhere')
    cfg.custom_imports = dict(imports=['projects.clip_vg'])
    cfg.dump(str(tmp_path / 'cfg.py'))
    done = run_script('tools/train.py', tmp_path / 'cfg.py')
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert str(tmp_path / 'nowhere') in done.stderr.splitlines()[-1]


def test_data_is_looked_at_before_the_model_is_built(tmp_path, shapes):
    """Weights that cannot be downloaded are not what a missing file costs."""
    config = ROOT / 'configs/clip_vg_refcoco.py'
    nowhere = tmp_path / 'nowhere'
    done = run_script(
        *('tools/train.py', config, '--work-dir', tmp_path, '--data-root', nowhere)
    )
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert str(nowhere) in done.stderr
    assert 'openai' not in done.stderr
    image = tmp_path / 'none.jpg'
    done = run_script(
        *('demo/ground.py', image, 'left man', '--checkpoint', tmp_path / 'none.pth'),
        *('--out-dir', tmp_path),
    )
    assert str(image) in done.stderr
    assert done.stderr.count('\n') == 1


def test_weights_that_cannot_be_downloaded_are_one_message(tmp_path, shapes):
    config = ROOT / 'configs/clip_vg_synthetic.py'
    done = run_script(
        *('tools/train.py', config, '--work-dir', tmp_path, '--data-root', shapes),
        *('--cfg-options', 'model.visual_encoder.pretrained=openai'),
        'model.visual_encoder.arch=ViT-B-16-quickgelu',
    )
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert "'openai'" in done.stderr


@pytest.fixture
def parser(monkeypatch):
    """Of a script of which an option and a positional were renamed."""
    renamed = {
        'a.py': {'--old': '--new-name', 'OUT': '--out'},
        'b.py do': {'--x': '--y'},
    }
    monkeypatch.setattr(command_line, 'RENAMED_ARGUMENTS', renamed)
    parser = argparse.ArgumentParser()
    parser.add_argument('source')
    parser.add_argument('--new-name')
    parser.add_argument('--out')
    return parser


@pytest.mark.parametrize(
    'words',
    [
        ('s', '--old', '1', 'o'),
        ('s', 'o', '--old=1'),
        ('--old', '1', 's', '--out', 'o'),
        ('s', '--new-name', '1', '--out', 'o'),
    ],
)
def test_earlier_spellings_mean_the_same(words, parser, caplog):
    args = parse_command(parser, 'a.py', words)
    assert vars(args) == dict(source='s', new_name='1', out='o')
    today = '--new-name' in words
    assert ('--new-name' in caplog.text) != today
    assert ('--out o' in caplog.text) == ('--out' not in words)


@pytest.mark.parametrize(
    ('words', 'names'),
    [
        (('s', '--old', '1', '--new-name', '2', 'o'), ('--old', '--new-name')),
        (('s',), ('--out',)),
        (('s', 'o', 'p'), ('p',)),
        (('s', '--out', 'o', '--other'), ('--other',)),
    ],
)
def test_what_cannot_be_meant_is_refused(words, names, parser, capsys):
    with pytest.raises(SystemExit) as ended_with:
        parse_command(parser, 'a.py', words)
    assert ended_with.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in names)


def test_a_value_is_no_option(parser, caplog):
    args = parse_command(parser, 'a.py', ['--out', 'o', '--', '--old'])
    assert args.source == '--old'
    assert not caplog.text


def test_options_of_one_subcommand(parser, caplog):
    both = argparse.ArgumentParser()
    commands = both.add_subparsers(dest='command')
    for name in ('do', 'undo'):
        command = commands.add_parser(name)
        command.add_argument('--x' if name == 'undo' else '--y')
    assert parse_command(both, 'b.py', ['do', '--x', '1']).y == '1'
    caplog.clear()
    assert parse_command(both, 'b.py', ['undo', '--x', '1']).x == '1'
    assert not caplog.text
