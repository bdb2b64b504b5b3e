"""A checkpoint is a file, a work dir or an exported folder, wherever one is named."""

import os
import shutil

import pytest
import torch
from mmengine.runner import Runner

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.work_dir import (
    find_checkpoint,
    find_weights,
    last_checkpoint,
)

from ..helpers.configs import runner_config
from ..helpers.models import save_tiny


def touch(path, seconds=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return path


def test_a_work_dir_is_its_best_or_last_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match='train first'):
        find_checkpoint(tmp_path)
    last = touch(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(str(last))
    assert find_checkpoint(tmp_path) == last
    touch(tmp_path / 'best_acc_epoch_9.pth', 1)
    best = touch(tmp_path / 'best_acc_epoch_1.pth', 2)
    assert find_checkpoint(str(tmp_path)) == find_checkpoint(best) == best
    assert find_weights(tmp_path) == best


def test_a_search_is_its_final_model(tmp_path):
    model = touch(tmp_path / 'final' / 'model.pth')
    assert find_checkpoint(tmp_path) == find_checkpoint(model.parent) == model


def test_an_exported_folder_is_itself_and_no_weights(tmp_path):
    touch(tmp_path / 'deployment.json')
    assert find_checkpoint(tmp_path) == tmp_path
    with pytest.raises(ValueError, match='is an exported detector'):
        find_weights(tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.pth: no such checkpoint'):
        find_checkpoint(tmp_path / 'none.pth')


def test_a_moved_work_dir_has_its_own_checkpoints(tmp_path):
    own = touch(tmp_path / 'moved/epoch_12.pth')
    touch(own.with_name('epoch_8.pth'))
    note = own.with_name('last_checkpoint')
    note.write_text('/elsewhere/run/epoch_12.pth\n')
    assert last_checkpoint(own.parent) == find_checkpoint(own.parent) == own
    original = touch(tmp_path / 'original/epoch_12.pth')
    note.write_text(str(original))
    assert last_checkpoint(own.parent) == own
    own.unlink()  # written elsewhere, by CheckpointHook(out_dir=...)
    assert last_checkpoint(own.parent) == original
    original.unlink()
    with pytest.raises(FileNotFoundError, match=r"original/epoch_12.*'epoch_8.pth'"):
        last_checkpoint(own.parent)
    note.unlink()
    touch(own.with_name('epoch_10.pth'))
    assert last_checkpoint(own.parent).name == 'epoch_10.pth'
    assert last_checkpoint(tmp_path) is None


def test_a_copied_work_dir_leaves_the_original_alone(shapes, sources, tmp_path):
    """Also its best checkpoint, which MMEngine deletes for a better one."""

    def config(name, epochs):
        cfg = runner_config(shapes, sources, tmp_path / name)
        cfg.default_hooks.run_check = dict(type='RunCheckHook')
        cfg.train_cfg.max_epochs = epochs
        return cfg

    Runner.from_cfg(config('original', 1)).train()
    shutil.copytree(tmp_path / 'original', tmp_path / 'copy')
    last = last_checkpoint(tmp_path / 'copy')
    checkpoint = torch.load(last, weights_only=False)
    checkpoint['message_hub']['runtime_info']['best_score'] = -1.0  # then a better one
    torch.save(checkpoint, last)
    cfg = config('copy', 2)
    cfg.update(resume=True, load_from=str(last))
    Runner.from_cfg(cfg).train()
    best = 'best_grounding_acc_0.5_epoch_{}.pth'.format
    assert (tmp_path / 'original' / best(1)).is_file()
    names = [path.name for path in (tmp_path / 'copy').glob('best_*.pth')]
    assert names == [best(2)]


def test_an_inferencer_takes_a_work_dir(tmp_path):
    best = save_tiny(tmp_path / 'run/best_acc_epoch_1.pth', 7)
    image = torch.zeros(20, 30, 3, dtype=torch.uint8).numpy()
    answers = [
        GroundingInferencer(path)(image, 'left')['predictions'][0]['bboxes']
        for path in (best, best.parent)
    ]
    assert answers[0] == answers[1]
    with pytest.raises(ValueError, match='precision'):
        GroundingInferencer(best.parent, precision='int8')
