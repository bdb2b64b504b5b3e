"""Adapters of the towers on shapes and colours that they were not pretrained on.

    python benchmarks/adapters.py --out-dir work_dirs/adapters

The trained detector of demo/ with its tiny CLIP is fine-tuned on images of six other
shapes in eight other colours, named by words that it never read. Each way to train is
a training run in a process of its own, one after another; rerun the same command to
resume. It prints and writes a table: accuracy at IoU 0.5 on the test images, trained
weights of CLIP and of all, peak memory, and seconds of one processor.
"""

import argparse
import logging
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import describe, peak_mib
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from novel_shapes import make_novel, with_all_words
from safetensors.torch import load_file

import projects.clip_vg  # noqa: F401
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.resumable import append_line, read_journal

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / 'demo/clip_vg_tiny.pth'
CLIP = ROOT / 'projects/clip_vg/assets/tiny_clip.safetensors'
# What both towers are given.
BOTH: dict[str, dict] = {
    'frozen': {},
    'LoRA, rank 16': dict(adapter=dict(kind='lora', rank=16)),
    'LoRA, rank 16, rate x 5': dict(adapter=dict(kind='lora', rank=16)),
    'biases': dict(adapter=dict(kind='bias')),
    'last block': dict(adapter=dict(kind='last_blocks', number=1)),
    'all of CLIP': dict(frozen=False),
}
WAYS = [*BOTH, 'learned prompt']


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out-dir',
        default='work_dirs/adapters',
        help='folder for images, training runs and the table (default: %(default)s)',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='seeds of images and training runs (default: 0 1 2)',
    )
    for option, default, what in (
        ('--epochs', 4, 'epochs of one training run, of 8 images a step'),
        ('--num-images', 400, 'number of training images'),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--ways',
        nargs='+',
        choices=WAYS,
        default=WAYS,
        help='what to train (default: all)',
    )
    return parser.parse_args()


def make_config(
    way: str, data: Path, clip: Path, start: Path, work_dir: Path, epochs: int
) -> Config:
    """The config of the built-in toy data set on other images, from a checkpoint."""
    cfg = Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py')
    for tower in ('visual_encoder', 'text_encoder'):
        cfg.model[tower].update(BOTH.get(way, {}), pretrained=str(clip))
    if way == 'learned prompt':
        cfg.model.text_encoder.prompt = dict(length=4)
    if 'rate' in way:
        rates = dict(lora_=dict(lr_mult=5.0))
        cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=rates)
    labels = dict(
        data_root=str(data),
        ann_file='labels.jsonl',
        split_file=None,
        box_format='xyxy',
    )
    cfg.load_from = str(start)
    cfg.train_dataloader.batch_size = 8
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        # In this process, whose time and memory are measured.
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(labels, split='test' if split == 'val' else split)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler[0].total_steps = epochs
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1)
    cfg.default_hooks.run_check = dict(type='RunCheckHook', on_leak='ignore')
    cfg.default_hooks.logger.interval = 1000
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    cfg.log_level = 'ERROR'
    return cfg


def make_start(clip: Path, path: Path) -> Path:
    """Write the detector of demo/ with a CLIP that has embeddings of all words."""
    if not path.is_file():
        init_default_scope('mmdet')
        cfg = Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py')
        model = MODELS.build(cfg.model)
        load_checkpoint(model, str(DEMO), map_location='cpu')
        state = model.state_dict()
        words = 'text_encoder.transformer.token_embedding.weight'
        state[words] = load_file(clip)['token_embedding.weight'].float()
        with replacing(path) as partial:
            torch.save(dict(state_dict=state), partial)
    return path


def run_training(
    way: str, seed: int, out: Path, num_images: int, epochs: int
) -> dict[str, Any]:
    """Train and test; the figures."""
    data = make_novel(out / f'images{seed}', dict(train=num_images, test=200), seed)
    clip = with_all_words(CLIP, out / 'clip.safetensors')
    work_dir = out / f'{way.replace(" ", "_").replace(",", "")}_{seed}'
    start = make_start(clip, out / 'start.pth')
    cfg = make_config(way, data, clip, start, work_dir, epochs)
    cfg.randomness.seed = seed
    runner = Runner.from_cfg(cfg)
    begun = time.process_time()
    runner.train()
    trained = {
        n: p.numel() for n, p in runner.model.named_parameters() if p.requires_grad
    }
    return dict(
        way=way,
        seed=seed,
        accuracy=runner.message_hub.get_scalar('val/grounding/acc_0.5').current(),
        trained_of_clip=sum(v for n, v in trained.items() if '_encoder.' in n),
        trained=sum(trained.values()),
        mib=peak_mib(),
        seconds=time.process_time() - begun,
    )


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures, in Markdown: means and standard deviations over the seeds."""
    lines = [
        '| way | accuracy | of each seed | trained of CLIP | trained | MiB | seconds |',
        '|---|---|---|---|---|---|---|',
    ]
    for way in dict.fromkeys(row['way'] for row in rows):
        own = [row for row in rows if row['way'] == way]
        reached = [row['accuracy'] for row in own]
        spread = f' ± {statistics.stdev(reached):.3f}' if len(own) > 1 else ''
        mib, seconds = (
            statistics.mean(row[key] for row in own) for key in ('mib', 'seconds')
        )
        lines.append(
            f'| {way} | {statistics.mean(reached):.3f}{spread} | '
            f'{" ".join(f"{value:.3f}" for value in reached)} | '
            f'{own[0]["trained_of_clip"]:,} | {own[0]["trained"]:,} | {mib:.0f} | '
            f'{seconds:.0f} |'
        )
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Run what is missing, then print the table."""
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    args = parse_args()
    out = Path(args.out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    # Forks import nothing anew; a fork's peak memory begins with what it has.
    context = multiprocessing.get_context('fork')
    torch.set_num_threads(1)  # OpenMP's threads are not there after a fork
    settings = dict(epochs=args.epochs, num_images=args.num_images)
    with lock_folder(out):
        done = read_journal(out / 'runs.jsonl', settings)
        for seed in args.seeds:
            for way in args.ways:
                step = f'{way}, seed {seed}'
                if step in done:
                    continue
                # A process of its own, whose memory is of this run alone.
                with ProcessPoolExecutor(1, context) as pool:
                    row = pool.submit(
                        run_training, way, seed, out, args.num_images, args.epochs
                    ).result()
                done[step] = dict(row, step=step)
                append_line(out / 'runs.jsonl', done[step])
                logging.info('%s: %s', step, row)
    table = make_table(sorted(done.values(), key=lambda row: WAYS.index(row['way'])))
    with replacing(out / 'table.md') as partial:
        partial.write_text(table)
    logging.info('%s\n%s', describe(), table)


if __name__ == '__main__':
    main()
