"""Benchmarks on a GPU: the same programs and tables, and clocks that wait for it."""

import logging
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS

from .helpers.configs import model_config
from .helpers.models import SIZE
from .helpers.pages import EXTRAS, load
from .helpers.stand_in_device import stand_in_device


@pytest.fixture
def programs(monkeypatch):
    """Loads programs, on a tiny model and images of its size."""

    def tiny(*_, **options):
        torch.manual_seed(0)
        return MODELS.build(dict(model_config(), **options)).eval()

    def program(name):
        module = load(f'benchmarks/{name}.py')
        inference = sys.modules[module.make_batch.__module__]
        monkeypatch.setattr(inference, 'SIZE', SIZE)
        monkeypatch.setattr(inference, 'LONG', SIZE)
        monkeypatch.setattr(inference, 'SHORT', 24)
        monkeypatch.setattr(module, 'build_model', tiny, raising=False)
        return module

    yield program
    logging.disable(logging.NOTSET)  # which processes of peers.py set for themselves


def test_the_clock_waits_for_a_gpu(monkeypatch):
    machine = load('benchmarks/machine.py')
    events = []
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: events.append('wait'))
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda: 3 * 2**20)
    monkeypatch.setattr(
        machine.time, 'perf_counter', lambda: events.append('time') or 0
    )
    machine.alternate(dict(one=lambda: events.append('run')), rounds=1, warmup=1)
    timed = ['wait', 'time', 'run', 'wait']
    assert events == [*timed, *timed, 'time']  # of the warm-up, no second reading
    assert machine.device_peak_mib() == 3
    monkeypatch.setattr(
        torch.cuda, 'get_device_name', lambda device: f'GPU of {device}'
    )
    assert machine.describe('cuda:1').startswith('GPU of cuda:1, ')


def test_predictions_are_measured_on_another_device(programs, monkeypatch, caplog):
    """On a stand-in for a GPU: the lines of the CPU, and the same boxes."""
    inference = programs('inference')
    monkeypatch.setattr(inference, 'memory_of', lambda args, way: [2000.0, 512.0])
    monkeypatch.setattr(inference, 'matmul_gflops', lambda device: 100)
    command = [
        'inference.py',
        '--expressions',
        '2',
        '--batch-size',
        '2',
        '--rounds',
        '1',
    ]
    tables = []
    for device in ('cpu', 'meta'):
        monkeypatch.setattr('sys.argv', [*command, '--bf16', '--device', device])
        caplog.clear()
        with caplog.at_level(logging.INFO), stand_in_device():
            inference.main()
        tables.append([record.getMessage() for record in caplog.records])
    shapes = [
        [re.sub(r' *[\d.]+(e[+-]\d+)?', ' N', line) for line in table]
        for table in tables
    ]
    assert shapes[0] == shapes[1]
    (ours,) = (line for line in tables[1] if ', ours' in line)
    assert float(re.search(r'difference ([\d.e+-]+)', ours)[1]) < 1e-5
    assert tables[1][-1].startswith('peak memory of the GPU')


def test_rows_of_tables_on_another_device(programs, monkeypatch):
    towers, memory = programs('towers'), programs('adapter_memory')
    monkeypatch.setattr(memory, 'build', lambda way: towers.build_model().train())
    monkeypatch.setattr(torch, 'set_num_threads', lambda number: None)
    rows, figures = [], []
    for device in ('cpu', 'meta'):
        with stand_in_device():
            rows.append(towers.measure('ViT', 2, 1, device))
            figures.append(memory.measure('frozen', 2, 1, device))
    assert [len(row.split('|')) for row in rows] == [8, 8]
    assert rows[0].split('|')[1:4] == rows[1].split('|')[1:4]
    for key in ('trained', 'trained_of_clip', 'megabytes'):
        assert figures[0][key] == figures[1][key]
    assert figures[1]['trained'] > 0 and figures[1]['seconds'] > 0


def test_rows_of_peers_on_another_device(programs, monkeypatch, tmp_path):
    monkeypatch.setattr(logging, 'disable', lambda level: None)
    if 'benchmarks/peers.py' in EXTRAS:
        pytest.importorskip(EXTRAS['benchmarks/peers.py'])
    peers = programs('peers')
    for name in (peers.PUBLISHED, 'PyTorch, float32'):
        boxes = []
        for device in ('cpu', 'meta'):
            with stand_in_device():
                predict = peers.ROWS[name](2, tmp_path, device)
                replies = []
                requests = iter([True, False])
                pipe = SimpleNamespace(send=replies.append, recv=requests.__next__)
                peers.serve_row(name, 2, 1, tmp_path, device, pipe)
                assert torch.equal(torch.from_numpy(replies[1][1]), predict().cpu())
            boxes.append(torch.from_numpy(replies[1][1]))
        torch.testing.assert_close(*boxes, atol=1e-5, rtol=0)


@pytest.mark.parametrize('way', ['published', 'faithful', 'grouped', 'frozen, stored'])
def test_a_step_is_the_same_on_another_device(programs, monkeypatch, way, tmp_path):
    training = programs('training')
    monkeypatch.setattr(training, 'PER_PICTURE', 2)
    losses = []
    for device in ('cpu', 'meta'):
        with stand_in_device():
            torch.manual_seed(0)  # of the boxes
            model_step = training.make_step(
                way, 4, device=device, token_dir=str(tmp_path / device)
            )
            torch.manual_seed(0)  # of dropout
            losses.append(float(model_step()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
