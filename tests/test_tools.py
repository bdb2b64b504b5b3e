"""The commands, as a user types them: ours, and MMDetection's own on our configs."""

import json
import os
import pickle
import re
import shutil
import signal
import sys
import time

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from projects.clip_vg_core.utils.folder_lock import lock_folder

from .helpers import ROOT
from .helpers.commands import FORKS, mmdet_tool, needs_mim, run, run_here, tool
from .helpers.configs import CONFIG
from .helpers.work_dirs import metrics, scalars


@pytest.fixture(scope='session')
def config(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(CONFIG.format(root=ROOT, data=shapes))
    return path


@pytest.fixture(scope='session')
def trained(tmp_path_factory, config):
    """A work dir of two epochs."""
    work_dir = tmp_path_factory.mktemp('trained')
    tool('tools/train.py', config, '--work-dir', work_dir)
    return work_dir


def test_a_second_training_in_a_work_dir_is_refused(config, tmp_path):
    with lock_folder(tmp_path):
        done = tool('tools/train.py', config, '--work-dir', tmp_path, check=False)
    assert done.returncode
    assert str(tmp_path) in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ['.lock']


def test_training_leaves_what_it_should(trained):
    names = {path.name for path in trained.glob('*.pth')}
    assert {'epoch_1.pth', 'epoch_2.pth'} <= names
    assert any(name.startswith('best_grounding_acc_0.5') for name in names)
    losses = [line['loss'] for line in scalars(trained) if 'loss' in line]
    assert len(losses) == 6  # 24 images in batches of 8, 2 epochs
    assert all(torch.isfinite(torch.tensor(losses)))


def test_testing_writes_metrics_images_and_predictions(trained, config, tmp_path):
    out = tmp_path / 'results.jsonl'
    tool(
        *('tools/test.py', config, trained, '--work-dir', tmp_path / 'work'),
        *('--out', tmp_path / 'dump.pkl', '--show-dir', 'images'),
        *('--cfg-options', f'test_evaluator.out_file={out}'),
        'default_hooks.visualization.interval=1',
    )
    results = [json.loads(line) for line in out.read_text().splitlines()]
    scores = metrics(tmp_path / 'work')
    hits = [r['iou'] >= 0.5 for r in results]
    assert scores['grounding/acc_0.5'] == pytest.approx(sum(hits) / len(hits))
    images = list((tmp_path / 'work').glob('*/images/*.jpg'))
    dump = pickle.loads((tmp_path / 'dump.pkl').read_bytes())
    assert sum(len(d['pred_instances']['bboxes']) for d in dump) == len(results)
    assert len(images) == len(dump)
    tool('tools/draw_results.py', out, '--out', tmp_path / 'grid.png')
    assert (tmp_path / 'grid.png').read_bytes()[:4] == b'\x89PNG'


def test_several_views_of_an_image_are_asked(trained, config, tmp_path):
    out = tmp_path / 'results.jsonl'
    tool(
        *('tools/test.py', config, trained, '--tta', '--work-dir', tmp_path),
        *('--cfg-options', f'test_evaluator.out_file={out}'),
    )
    ious = [json.loads(line)['iou'] for line in out.read_text().splitlines()]
    mean = sum(ious) / len(ious)
    assert metrics(tmp_path)['grounding/miou'] == pytest.approx(mean, abs=1e-6)
    assert "type='GroundingTTAModel'" in (tmp_path / 'tiny.py').read_text()


def test_two_processes_score_every_sample_once_and_alike(trained, config, tmp_path):
    command = ('tools/test.py', config, trained / 'epoch_2.pth')
    scores, lines = [], []
    for ranks, launcher in (1, 'none'), (2, 'pytorch'):
        work_dir, out = tmp_path / f'{ranks}', tmp_path / f'{ranks}.jsonl'
        tool(
            *(*command, '--work-dir', work_dir, '--launcher', launcher),
            *('--cfg-options', f'test_evaluator.out_file={out}'),
            'test_dataloader.batch_size=1',
            ranks=ranks,
        )
        scores.append(metrics(work_dir))
        lines.append([json.loads(line) for line in out.read_text().splitlines()])
    assert [r['sample_id'] for r in lines[0]] == [r['sample_id'] for r in lines[1]]
    assert len({r['sample_id'] for r in lines[1]}) == len(lines[1])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_two_processes_train(config, tmp_path):
    run(
        *(sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2'),
        *('--standalone', 'tools/train.py', config, '--launcher', 'pytorch'),
        *('--work-dir', tmp_path, '--cfg-options', 'train_dataloader.batch_size=4'),
    )
    assert (tmp_path / 'epoch_2.pth').is_file()
    assert len([line for line in scalars(tmp_path) if 'loss' in line]) == 6


def test_a_killed_training_goes_on_as_if_it_had_not_been(config, tmp_path):
    """The same learning rates and number of epochs, and no damaged checkpoint."""
    options = ['--cfg-options', 'train_cfg.max_epochs=4']
    options += ['param_scheduler.0.total_steps=4']
    command = ('tools/train.py', config, '--work-dir')
    tool(*command, tmp_path / 'whole', *options)
    killed = tmp_path / 'killed'
    argv = [str(part) for part in (*command, killed, *options)]
    process = FORKS.Process(target=run_here, args=(argv, os.devnull, os.devnull))
    process.start()
    limit = time.time() + 200
    while not (killed / 'last_checkpoint').exists() and time.time() < limit:
        time.sleep(0.01)
    time.sleep(0.1)  # into the next epoch
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for path in killed.glob('*.pth'):
        torch.load(path, weights_only=False)
    tool(*command, killed, '--resume', *options)
    assert (killed / 'epoch_4.pth').is_file()
    rates = []
    for work_dir in (tmp_path / 'whole', killed):
        by_step = {ln['step']: ln['lr'] for ln in scalars(work_dir) if 'lr' in ln}
        rates.append([by_step[step] for step in sorted(by_step)])
    assert rates[0] == pytest.approx(rates[1])
    assert len(rates[0]) == 12


def test_a_damaged_checkpoint_is_named(trained, config, tmp_path):
    damaged = tmp_path / 'damaged.pth'
    data = (trained / 'epoch_2.pth').read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    done = tool(
        *('tools/test.py', config, damaged, '--work-dir', tmp_path), check=False
    )
    assert done.returncode
    assert 'damaged.pth' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('name', ['test', 'score', 'resume', 'export', 'ground'])
def test_a_checkpoint_of_another_model_is_refused(
    name, trained, config, shapes, tmp_path
):
    deeper = tmp_path / 'deeper.py'
    deeper.write_text(f"_base_ = '{config}'\nmodel = dict(fusion=dict(num_layers=4))\n")
    last = trained / 'epoch_2.pth'
    image = sorted((shapes / 'images').glob('*.jpg'))[0]
    out = tmp_path / 'out'
    command = dict(
        test=('tools/test.py', deeper, last, '--work-dir', out),
        score=('tools/score_reliability.py', deeper, last, '--out-dir', out),
        resume=('tools/train.py', deeper, '--work-dir', out, '--resume', last),
        export=(
            *('tools/deployment/export.py', last, '--config', deeper),
            *('--out-dir', out),
        ),
        ground=(
            *('demo/ground.py', image, 'star', '--checkpoint', last),
            *('--config', deeper, '--out-dir', out),
        ),
    )[name]
    done = tool(*command, check=False)
    assert done.returncode == 1
    assert re.search(r'16 .*fusion\.layers\.3\.', done.stderr)


def test_a_work_dir_without_checkpoint_is_named(config, tmp_path):
    done = tool('tools/test.py', config, tmp_path, check=False)
    assert str(tmp_path) in done.stderr.splitlines()[-1]


def test_a_work_dir_is_taken_by_every_tool(trained, config, shapes, tmp_path):
    image = sorted((shapes / 'images').glob('*.jpg'))[0]
    tool(
        *('demo/ground.py', image, 'red circle', '--checkpoint', trained),
        *('--out-dir', tmp_path / 'ground'),
    )
    tool(
        'tools/score_reliability.py', config, trained, '--out-dir', tmp_path / 'scores'
    )
    assert list((tmp_path / 'scores').glob('best_grounding_acc_0.5_*.npy'))
    reverse = ('tools/model_converters/official_clip_vg.py', '--reverse', trained)
    tool(*reverse, tmp_path / 'official.pth')


def test_a_moved_training_run_goes_on(trained, config, tmp_path):
    moved = shutil.copytree(trained, tmp_path / 'moved')
    (moved / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    options = ('--cfg-options', 'train_cfg.max_epochs=3', 'param_scheduler=[]')
    tool('tools/train.py', config, '--work-dir', moved, '--resume', *options)
    assert (moved / 'epoch_3.pth').is_file()
    new = tmp_path / 'new'
    tool('tools/train.py', config, '--work-dir', new, '--resume', trained, *options)
    assert [path.name for path in new.glob('epoch_*.pth')] == ['epoch_3.pth']
    empty = tmp_path / 'empty'
    empty.mkdir()
    refused = tool('tools/train.py', config, '--resume', empty, check=False)
    assert refused.stderr.splitlines()[-1].startswith('FileNotFoundError: ')
    assert f'--resume {empty}: ' in refused.stderr


def test_a_run_with_nothing_to_resume_keeps_its_weights(trained, config, tmp_path):
    start = f'load_from={trained / "epoch_2.pth"}'
    done = tool(
        *('tools/train.py', config, '--work-dir', tmp_path, '--resume'),
        *('--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler=[]', start),
    )
    assert f'Load checkpoint from {trained / "epoch_2.pth"}' in done.stdout
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('schedule', ['OneCycleLR', 'ConstantLR'])
def test_auto_scale_lr_scales_what_is_used(schedule, config, tmp_path):
    """Of batches of 8, for a rate that is meant for 32."""
    text = f"""
_base_ = '{config}'
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = [dict(type='{schedule}', {{}})]
"""
    one_cycle = 'eta_max=1e-3, total_steps=6, by_epoch=False'
    (tmp_path / 'scaled.py').write_text(
        text.format(one_cycle if schedule == 'OneCycleLR' else 'factor=1.0')
    )
    command = ('tools/train.py', tmp_path / 'scaled.py', '--work-dir')
    tool(*command, tmp_path / 'plain')
    tool(*command, tmp_path / 'scaled', '--auto-scale-lr')
    plain, scaled = (
        [line['lr'] for line in scalars(tmp_path / name) if 'lr' in line]
        for name in ('plain', 'scaled')
    )
    assert len(plain) == 6
    assert scaled == pytest.approx([rate / 4 for rate in plain])


@needs_mim
def test_mmdetections_own_tools_train_and_test(trained, config, tmp_path):
    mmdet_tool(
        *('train.py', config, '--work-dir', tmp_path / 'train'),
        *('--cfg-options', 'train_cfg.max_epochs=1'),
    )
    mmdet_tool(
        *('test.py', config, tmp_path / 'train/epoch_1.pth'),
        *('--work-dir', tmp_path / 'test'),
    )
    tool(
        *('tools/test.py', config, tmp_path / 'train/epoch_1.pth'),
        *('--work-dir', tmp_path / 'ours'),
    )
    assert metrics(tmp_path / 'test') == metrics(tmp_path / 'ours')


@needs_mim
def test_mmdetections_analysis_tools(trained, config, tmp_path):
    printed = mmdet_tool('misc/print_config.py', config).stdout
    assert "type='CLIPVG'" in printed
    mmdet_tool(
        *('analysis_tools/browse_dataset.py', config, '--not-show'),
        *('--output-dir', tmp_path / 'browse'),
    )
    init_default_scope('mmdet')
    labels = DATASETS.build(Config.fromfile(config).train_dataloader.dataset)
    assert len(list((tmp_path / 'browse').glob('*.jpg'))) == len(labels)
    log = next(trained.glob('*/vis_data/scalars.json'))
    mmdet_tool(
        *('analysis_tools/analyze_logs.py', 'plot_curve', log),
        *('--keys', 'loss', '--out', tmp_path / 'loss.png'),
    )
    assert (tmp_path / 'loss.png').is_file()


def test_the_synthetic_generator_says_what_it_made(tmp_path):
    out = tmp_path / 'shapes'
    command = ('tools/make_synthetic.py', '--out-dir', out, '--train', 2, '--val', 1)
    assert re.search(rf'{out}: 4 \w+, \d+ ', tool(*command, '--test', 1).stderr)


def test_a_converted_data_set_is_the_same(shapes, tmp_path):
    from projects.clip_vg_core.data.readers import read_annotations

    files = (shapes / 'shapes/instances.json', shapes / 'shapes/refs(synthetic).p')
    out = tmp_path / 'labels.jsonl'
    command = ('tools/dataset_converters/refexp2odvg.py', files[0], '--out', out)
    tool(*command, '--split-file', files[1], '--split', 'val')
    assert list(read_annotations(out)) == list(read_annotations(*files, splits=['val']))
    refused = tool(*command, '--split-file', files[1], check=False)
    assert 'FileExistsError' in refused.stderr


def test_a_data_set_is_cut_to_a_few_images(shapes, tmp_path):
    from projects.clip_vg_core.data.readers import read_annotations

    files = (shapes / 'shapes/instances.json', shapes / 'shapes/refs(synthetic).p')
    every = {label['sample_id']: label for label in read_annotations(*files)}
    previous: set = set()
    for number in (2, 4):
        out, images = tmp_path / f'{number}.jsonl', tmp_path / f'images{number}'
        tool(
            *('tools/dataset_converters/refexp2odvg.py', files[0], '--out', out),
            *('--split-file', files[1], '--max-images', number, '--seed', 5),
            *('--images', shapes / 'images', '--images-out', images),
        )
        table = read_annotations(out)
        of_split = {
            split: {label['image'] for label in table if label['split'] == split}
            for split in ('train', 'val', 'test')
        }
        assert [len(names) for names in of_split.values()] == [number] * 3
        names = set().union(*of_split.values())
        # All labels of an image stay, as they were; more images are the same and more.
        ids = {label['sample_id'] for label in table}
        assert ids == {k for k, label in every.items() if label['image'] in names}
        assert all(label == dict(every[label['sample_id']], img_id=label['img_id'])
                   for label in table)  # fmt: skip
        assert names > previous
        previous = names
        assert {path.name for path in images.iterdir()} == names
        for name in names:
            original = (shapes / 'images' / name).read_bytes()
            assert (images / name).read_bytes() == original
    refused = tool(
        *('tools/dataset_converters/refexp2odvg.py', files[0]),
        *('--out', tmp_path / 'x.jsonl', '--split-file', files[1]),
        *('--max-images', 0),
        check=False,
    )
    assert refused.returncode and 'got 0' in refused.stderr


def test_rows_of_other_columns_are_converted(tmp_path):
    """Fractions of the image, whose size is in its head; a positional output path."""
    from projects.clip_vg_core.data.readers import read_annotations

    (tmp_path / 'mine.csv').write_text('file,words,l,t,r,b\na.png,x,0.1,0.1,0.5,0.5\n')
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.png')
    out = tmp_path / 'labels.jsonl'
    command = ('tools/dataset_converters/refexp2odvg.py', tmp_path / 'mine.csv', out)
    command += ('--fields', 'text=words', 'box=l,t,r,b', '--box-format', 'xyxy')
    tool(*command, '--box-unit', '1', '--images', tmp_path)
    (label,) = read_annotations(out)
    assert label['bbox'] == pytest.approx([6, 4, 30, 20])
    assert (label['image'], label['text']) == ('a.png', 'x')
    refused = tool(*command, '--box-unit', '1', '--overwrite', check=False)
    assert 'mine.csv, row 2' in refused.stderr and 'a.png' in refused.stderr


def test_the_pretraining_of_the_tiny_clip_runs(tmp_path):
    from projects.clip_vg.checkpoints.clip_weights import read_clip_weights

    out = tmp_path / 'clip.safetensors'
    tool(
        *('tools/pretrain_tiny_clip.py', '--out', out, '--num-images', 8),
        *('--steps', 2, '--batch-size', 4),
    )
    made, quick_gelu = read_clip_weights(out)
    shipped, _ = read_clip_weights(
        ROOT / 'projects/clip_vg/assets/tiny_clip.safetensors'
    )
    assert quick_gelu is True
    assert {k: v.shape for k, v in made.items()} == {
        k: v.shape for k, v in shipped.items()
    }
