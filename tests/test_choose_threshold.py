"""The command that chooses a threshold, and the checkpoint that it writes."""

import re
import runpy
import sys

import numpy as np
import pytest
import torch

from projects.clip_vg.checkpoints.checkpoint_config import config_of_checkpoint
from projects.clip_vg.checkpoints.safe_loading import read_checkpoint
from projects.clip_vg.checkpoints.score_threshold import write_score_thr
from projects.clip_vg_core.metrics.results_file import write_results
from projects.clip_vg_core.utils.atomic import file_sha256

from .helpers import ROOT
from .helpers.models import save_tiny
from .helpers.results import answer


@pytest.fixture
def choose(monkeypatch, caplog):
    """The command, in this process; returns what it logs."""

    def run(*args):
        caplog.clear()
        monkeypatch.setattr(sys, 'argv', ['choose_threshold.py', *map(str, args)])
        path = ROOT / 'tools/analysis/choose_threshold.py'
        with caplog.at_level('INFO'):
            runpy.run_path(str(path), run_name='__main__')
        return caplog.text

    return run


@pytest.fixture
def results(tmp_path):
    """1,000 predictions, of which those of a score s are right with s."""
    rng = np.random.default_rng(0)
    scores = rng.random(1000)
    hits = rng.random(1000) < scores
    rows = [
        answer(i, score=float(s), iou=0.8 if hit else 0.1)
        for i, (s, hit) in enumerate(zip(scores, hits, strict=True))
    ]
    write_results(tmp_path / 'val.jsonl', rows)
    return tmp_path / 'val.jsonl', scores, hits


def test_the_threshold_goes_into_a_new_checkpoint(results, choose, tmp_path):
    path, scores, hits = results
    source = save_tiny(tmp_path / 'run' / 'epoch_1.pth', 0)
    before = file_sha256(source)
    out = tmp_path / 'new' / 'abstaining.pth'
    said = choose(path, '--risk', 0.2, '--checkpoint', source, '--out', out)
    score_thr = config_of_checkpoint(out).model.test_cfg.score_thr
    shown = scores >= score_thr
    # The share of right ones is the mean score: (1 + t) / 2 above t.
    assert 0.55 < score_thr < 0.75 and 0.1 < (~hits[shown]).mean() < 0.2
    numbers = re.findall(r'\d[\d,.]*\d', said)
    for number in (f'{score_thr:.4f}', f'{shown.mean():.3f}', f'{shown.sum()}'):
        assert number in numbers
    assert file_sha256(source) == before
    one, other = read_checkpoint(source), read_checkpoint(out)
    assert one['state_dict'].keys() == other['state_dict'].keys()
    for name, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name])
    plain = config_of_checkpoint(source).to_dict()
    plain['model']['test_cfg'] = dict(score_thr=score_thr)
    assert config_of_checkpoint(out).to_dict() == plain
    with pytest.raises(SystemExit, match=re.escape(str(out))):
        choose(path, '--risk', 0.2, '--checkpoint', source, '--out', out)
    # Chosen again: the one place has the other number.
    choose(path, '--risk', 0.3, '--checkpoint', out, '--out', tmp_path / 'b.pth')
    assert config_of_checkpoint(tmp_path / 'b.pth').model.test_cfg.score_thr < score_thr


def test_too_few_predictions_are_an_error_that_says_how_many(results, choose, tmp_path):
    path, _, _ = results
    lines = path.read_text().splitlines(keepends=True)
    few = tmp_path / 'few.jsonl'
    few.write_text(''.join(lines[:20]))
    with pytest.raises(SystemExit, match=r'few\.jsonl.* 29 '):
        choose(few, '--risk', 0.1)
    assert 'threshold' in choose(few, '--risk', 0.3, '--confidence', 0)


def test_thresholds_that_the_file_cannot_tell_are_refused(choose, tmp_path):
    box = [0.0, 0.0, 9.0, 9.0]
    rows = [
        dict(bboxes=[box, box], scores=[0.9, 0.7], gt_bboxes=[box] * 2)
        for _ in range(50)
    ]
    write_results(tmp_path / 'a.jsonl', rows)
    with pytest.raises(SystemExit, match=r'a\.jsonl .*0\.7000'):
        choose(tmp_path / 'a.jsonl', '--risk', 0.1)
    rows.append(dict(bboxes=[box, box], scores=[0.9, 0.0], gt_bboxes=[]))
    write_results(tmp_path / 'b.jsonl', rows)
    said = choose(tmp_path / 'b.jsonl', '--risk', 0.1)
    assert 'N-acc 0.000 (1)' in said and 'T-acc 1.000 (50)' in said


@pytest.mark.parametrize('option', ['--checkpoint', '--out'])
def test_a_checkpoint_is_never_written_in_place(results, choose, tmp_path, option):
    source = save_tiny(tmp_path / 'epoch_1.pth', 0)
    with pytest.raises(SystemExit, match='--out'):
        choose(results[0], '--risk', 0.2, option, source, '--overwrite')
    with pytest.raises(ValueError, match=re.escape(str(source))):
        write_score_thr(source, source, 0.5)


def test_a_checkpoint_without_a_config_is_named(tmp_path):
    weights = read_checkpoint(save_tiny(tmp_path / 'a.pth', 0))['state_dict']
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match=r'bare\.pth'):
        write_score_thr(tmp_path / 'bare.pth', tmp_path / 'b.pth', 0.5)
    assert not (tmp_path / 'b.pth').exists()
