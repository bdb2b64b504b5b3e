"""Reproduce the tables of the paper: check what is there, plan, run, compare.

    python tools/reproduce.py --only full_refcoco ssa_refcoco --smoke shapes
    python tools/reproduce.py --only full_refcoco ssa_refcoco --dry-run
    python tools/reproduce.py --only full_refcoco ssa_refcoco
    python tools/reproduce.py --table

A row is a kind and a data set: {full, single, ssa, multi, msa, released_full,
released_ssa, released_msa}_{refcoco, refcoco_plus, refcocog_google, refcocog_umd,
referit, flickr30k}. Each is trained by the recipe of the official code, or is a
checkpoint of it, and tested; table.md in the work dir has ours beside the paper's
numbers. Rerun the same command to resume. --smoke takes the same steps in minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from train import add_cfg_options, load_config

from projects.clip_vg_core.curriculum.search import number_of_trials
from projects.clip_vg_core.data.published_sets import PUBLISHED
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import run_command
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.utils.resumable import append_line, read_journal

if TYPE_CHECKING:
    from mmengine.config import Config

TOOLS = Path(__file__).parent


class DataSet(NamedTuple):
    """Where a data set is, below --data-root, and what others call it."""

    folder: str
    official: str  # --dataset of the official code
    published: str  # in clip_vg_core.data.published_sets
    splits: str


SETS = {
    'refcoco': DataSet('coco', 'unc', 'RefCOCO (unc)', 'val testA testB'),
    'refcoco_plus': DataSet('coco', 'unc+', 'RefCOCO+ (unc)', 'val testA testB'),
    'refcocog_google': DataSet('coco', 'gref', 'RefCOCOg (google)', 'val'),
    'refcocog_umd': DataSet('coco', 'gref_umd', 'RefCOCOg (umd)', 'val test'),
    'referit': DataSet('', 'referit', 'ReferItGame', 'test'),
    'flickr30k': DataSet('', 'flickr', 'Flickr30k Entities', 'test'),
}
# Top-1 accuracy in %, in the order of SETS: Table I of arXiv 2305.08685 (RefCOCO,
# RefCOCO+, RefCOCOg) and Table II (ReferIt, Flickr30k).
PAPER = {
    'full': '84.29 87.76 78.43|69.55 77.33 57.62|72.64|73.18 72.54|70.89|81.99',
    'single': '57.92 61.92 54.82|47.92 52.07 35.21|52.31|51.45 51.47|46.16|61.66',
    'ssa': '62.38 65.03 56.64|48.87 55.73 39.41|54.16|54.11 54.81|50.63|64.51',
    'multi': '60.18 65.04 57.03|48.23 54.21 38.39|55.26|54.54 54.44|49.30|63.33',
    'msa': '64.89 69.03 59.12|50.85 57.31 41.27|58.06|56.54 57.51|53.08|66.62',
}
KINDS = (*PAPER, 'released_full', 'released_ssa', 'released_msa')
# Of released checkpoints that are not those of the paper: README of the official code.
README = {
    'released_full_refcoco_plus': '71.08 79.17 59.40',
    'released_ssa_refcocog_google': '56.46',
}
SCHEDULE = ('param_scheduler.0.T_max', 'param_scheduler.0.end')
# Towers and a fusion of few weights, at random: for smoke runs.
TINY = [
    *(
        f'model.{tower}.{word}'
        for tower in ('visual_encoder', 'text_encoder')
        for word in (
            *('pretrained=None', 'arch._delete_=True', 'arch.embed_dim=64'),
            *('arch.quick_gelu=True', 'arch.vision_cfg.image_size=224'),
            *('arch.vision_cfg.patch_size=32', 'arch.vision_cfg.width=64'),
            *('arch.vision_cfg.layers=2', 'arch.vision_cfg.head_width=64'),
            *('arch.text_cfg.context_length=77', 'arch.text_cfg.vocab_size=49408'),
            *('arch.text_cfg.width=64', 'arch.text_cfg.heads=1'),
            'arch.text_cfg.layers=1',
        )
    ),
    'model.visual_encoder.extract_layers=[0,1]',
    *('model.fusion.num_layers=1', 'model.fusion.feedforward_channels=32'),
]
# Training, in images a second and GPU: Table III.
PAPER_FPS = 252.57
# As the paper's Fig. 3 and the official lists number them.
SOURCES = ('template', 'relation', 'caption')
DRIVE = 'https://drive.google.com/file/d/{}/view'
REFER = 'https://web.archive.org/web/{}/https://bvisionweb1.cs.unc.edu/licheng/referit'
LISTS = (
    f'{DRIVE.format("1G5VK8uNbAepyrQiI_DLQaN_02tYyOQq2")} (one source), '
    f'{DRIVE.format("1X9F5n7M0Zm4jhOIf1tjHj6bzMh6A1ZkE")} (three)'
)
# Where what a path holds comes from; the first pattern that fits counts. Links of the
# README of the official code, and of issue 26 of lichengunc/refer.
ORIGINS = {
    '*/full/*/best_checkpoint.pth': DRIVE.format('1vUC4swZM3ho_5olO--Y3PdKzMBW_iBJG'),
    '*/ssa/*/best_checkpoint.pth': DRIVE.format('14b-lc7zNniy4EEcJoBdXY9gNv2d20yxU'),
    '*/msa/*/best_checkpoint.pth': DRIVE.format('1NU35UhAqx2YLehG5ni59rG4sWWaAaXGm'),
    '*/pseudo/*': f'tools/generate_pseudo_labels.py, or {LISTS}, as '
    '--cfg-options train_dataloader.dataset.ann_file=FILE',
    '*_pseudo*.pth': LISTS,
    '*/train2014': 'http://images.cocodataset.org/zips/train2014.zip',
    '*/refcoco/*': f'{REFER.format("20220413011718")}/data/refcoco.zip',
    '*/refcoco+/*': f'{REFER.format("20220413011656")}/data/refcoco+.zip',
    '*/refcocog/*': f'{REFER.format("20220413012904")}/data/refcocog.zip',
    '*/referit/images': 'https://drive.google.com/drive/folders/'
    '1D4shieeoKly6FswpdjSpaOrxJQNKTyTv',
    '*/flickr30k-images': 'http://shannon.cs.illinois.edu/DenotationGraph/',
    '*.pth': DRIVE.format('1ituKSxWU5aXsGnXePd7twv7ImJoFiATc'),
    '*': 'https://openaipublic.azureedge.net/clip/models/5806e77cd80f8b59890b7e101eabd0'
    '78d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt',
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, '(default: %(default)s)'
    text = "rows by their names, or patterns such as 'ssa_*' (default: all)"
    add('--only', nargs='+', default=['*'], metavar='ROW', help=text)
    text = f'folder with a folder for each row {default}'
    add('--work-dir', type=Path, default='work_dirs/reproduce', help=text)
    text = f'folder with coco, referit and flickr30k {default}'
    add('--data-root', type=Path, default='data', help=text)
    text = 'folder of released checkpoints, {full,ssa,msa}/{unc,unc+,gref,gref_umd,'
    text += f'referit,flickr}}/best_checkpoint.pth {default}'
    add('--checkpoints', type=Path, default='data/clip_vg', help=text)
    text = f'what starts the processes, if there are several {default}'
    add('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help=text)
    text = f'processes of one training run, one for each GPU {default}'
    add('--processes', type=int, default=1, help=text)
    add_cfg_options(parser)
    text = 'begin the rows anew, without what they have (default: resume them)'
    add('--overwrite', action='store_true', help=text)
    text = 'take the same steps for two epochs and a few images, into WORK_DIR/smoke: '
    text += 'a tiny model on drawn images in the layout of RefCOCO (shapes), a tiny '
    text += 'model on your data (tiny), or the model of the row on your data (full); '
    text += 'the accuracy means nothing (default: the whole row)'
    add('--smoke', choices=['shapes', 'tiny', 'full'], help=text)
    text = 'print the plan, its cost and what is missing (default: run it)'
    add('--dry-run', action='store_true', help=text)
    text = 'write the table of what is finished, and stop (default: run the rows)'
    add('--table', action='store_true', help=text)
    args = parser.parse_args()
    if args.processes < 1 or (args.processes > 1 and args.launcher == 'none'):
        parser.error(
            'expected --processes >= 1, and --launcher where there are several'
        )
    if args.smoke:
        args.work_dir /= 'smoke'
    if args.smoke == 'shapes':
        args.data_root = args.work_dir / 'data'
    return args


class Row:
    """A row of the paper's tables under the options of the command line.

    Args:
        name (str): Such as ``ssa_refcoco``.
        args (Namespace): Of :func:`parse_args`.
    """

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.args, self.folder = name, args, args.work_dir / name
        self.kind = next(k for k in KINDS if name.removeprefix(f'{k}_') in SETS)
        key = name.removeprefix(f'{self.kind}_')
        self.data, self.splits = SETS[key], SETS[key].splits.split()
        self.root = args.data_root / self.data.folder
        self.trains, self.searches = self.kind in PAPER, self.kind in ('ssa', 'msa')
        sources = dict(single=1, ssa=1, multi=3, msa=3).get(self.kind, 0)
        end = ('', '_single_source', '', '_multi_source')[sources]
        self.config = TOOLS.parent / 'configs' / f'clip_vg_{key}{end}.py'
        reported = self.kind.removeprefix('released_')
        self.released = args.checkpoints / reported / self.data.official
        self.released /= 'best_checkpoint.pth'
        self.where = 'Table I' if self.data.folder else 'Table II'
        numbers = PAPER[reported].split('|')[list(SETS).index(key)]
        if name in README:
            self.where, numbers = 'official README', README[name]
        self.paper = [float(number) for number in numbers.split()]

    def cfg_options(self) -> list[str]:
        """The recipe as ``key=value``, those of the user last."""
        words: list[str] = []
        if self.trains:
            # train_and_eval_full_sup.sh on 5 GPUs of 64, train_and_eval_unsup.sh on 6.
            epochs, batch = (120, 320) if self.kind == 'full' else (110, 384)
            own, rest = divmod(batch, self.args.processes)
            if rest:
                raise ValueError(
                    f'--processes {self.args.processes}: {self.name} has a global '
                    f'batch of {batch} expressions; expected a divisor of it.'
                )
            # Gradients are accumulated over parts of at most 64, as a GPU had them.
            parts = next(n for n in range(1, own + 1) if own / n <= 64 and own % n == 0)
            words += [
                *(f'{key}={epochs}' for key in ('train_cfg.max_epochs', *SCHEDULE)),
                f'train_dataloader.batch_size={own // parts}',
                f'optim_wrapper.accumulative_counts={parts}',
                'train_dataloader.dataset.pipeline.2.transforms.1.1.official=True',
            ]
        if self.args.smoke:
            words += self.smoke_options()
        return words + (self.args.cfg_options or [])

    def smoke_options(self) -> list[str]:
        """What makes a row of a few images and two epochs, as ``key=value``."""
        loaders = ['train', 'val', 'test'] if self.trains else ['test']
        words = [f'{name}_dataloader.dataset.max_images=24' for name in loaders]
        if not self.trains:
            return words
        words += [f'{key}=2' for key in ('train_cfg.max_epochs', *SCHEDULE)]
        words.append('train_dataloader.drop_last=False')
        if self.args.smoke != 'full':
            words += ['train_dataloader.batch_size=8', *TINY]
            words.append('optim_wrapper.accumulative_counts=1')
        return words

    def commands(self) -> Iterator[tuple[str, str, list[str]]]:
        """Name, script and arguments of each step."""
        common, words = ['--data-root', str(self.root)], self.cfg_options()
        common += ['--cfg-options', *words] if words else []
        config, model = str(self.config), str(self.folder / 'train')
        if self.searches:
            search = self.folder / 'search'
            options = ['--work-dir', str(search), '--unhelpful', 'keep']
            options += ['--equal', 'epochs', '--launcher', self.args.launcher]
            options += ['--processes', str(self.args.processes)]
            options += ['--order', *SOURCES] if self.kind == 'msa' else []
            # After a smoke run's few steps no label is reliable.
            options += ['--start', '0'] if self.args.smoke else []
            yield 'search', 'self_paced.py', [config, *options, *common]
            config = str(search / 'final' / 'config.py')
            model = str(search / 'final' / 'model.pth')
        elif self.trains:
            options = ['--work-dir', model, '--resume', 'auto']
            yield 'train', 'train.py', [config, *options, *common]
        else:
            model = str(self.folder / 'model.pth')
            options = [str(self.released), model, '--config', config, '--overwrite']
            yield 'convert', 'model_converters/official_clip_vg.py', options
        options = ['--work-dir', str(self.folder / 'test')]
        yield 'test', 'test.py', [config, model, *options, *common]

    def load(self) -> Config:
        """The config as the tools will read it."""
        options = dict(config=str(self.config), data_root=str(self.root))
        args = argparse.Namespace(**options, work_dir=None, launcher='none')
        args.cfg_options = self.cfg_options()
        return load_config(args)

    def needs(self, cfg: Config) -> Iterator[Path]:
        """Files and folders that must be there."""
        loaders = [cfg.test_dataloader]
        if self.trains:
            loaders += [cfg.train_dataloader, cfg.val_dataloader]
            tag = str(cfg.model.visual_encoder.pretrained)
            yield from [Path(tag)] if tag not in ('openai', 'None') else []
        else:
            yield self.released
        for data in (loader.dataset for loader in loaders):
            splits = [data.split] if isinstance(data.split, str) else data.split or ['']
            files = [data.ann_file] if isinstance(data.ann_file, str) else data.ann_file
            named = [f.replace('{split}', split) for f in files for split in splits]
            named += [data.split_file] if data.get('split_file') else []
            yield from (self.root / name for name in [*named, data.data_prefix.img])

    def plan(self, cfg: Config) -> str:
        """The number of training runs and their cost at most; one line."""
        if not self.trains:
            return f'{self.name}: {self.released} converted and tested'
        sizes = self.sizes(cfg)
        fewest, most, seen = 1, 1, sum(sizes)
        if self.searches:
            few, many = (len(sizes) - 1 + n for n in number_of_trials('greedy'))
            fewest, most = (len(sizes) * (1 + n) for n in (few, many))
            # A trial of the k-th source is on labels of the first k.
            seen += many * sum(accumulate(sizes))
        epochs = cfg.train_cfg.max_epochs
        batch = cfg.train_dataloader.batch_size * self.args.processes
        batch *= cfg.optim_wrapper.get('accumulative_counts', 1)
        runs = '1 training run' if most == 1 else f'{fewest} to {most} training runs'
        length = '1 epoch' if epochs == 1 else f'{epochs} epochs'
        text = f'{self.name}: {runs} of {length} at batch {batch}'
        if not seen:
            return f'{text}; steps unknown until the labels are there'
        return (
            f'{text}, at most {seen * epochs // batch:,} steps and '
            f"{seen * epochs / PAPER_FPS / 3600:,.1f} GPU-hours at the paper's "
            f'throughput ({PAPER_FPS} images a second and GPU, Table III)'
        )

    def sizes(self, cfg: Config) -> list[int]:
        """Training labels of each source: counted, else published, else 0."""
        from mmdet.registry import DATASETS
        from mmengine.registry import init_default_scope

        init_default_scope('mmdet')
        data = dict(cfg.train_dataloader.dataset, check_images='off')
        try:
            dataset = DATASETS.build(data)
            dataset.full_init()
        except FileNotFoundError:
            known = {one.name: one.splits['train'] for one in PUBLISHED}
            count = known[self.data.published] if self.kind == 'full' else 0
            return [count] * (1 if isinstance(data['ann_file'], str) else len(SOURCES))
        return [len(dataset.indices_of(file)) for file in dataset.label_files]

    def missing_images(self, cfg: Config) -> Iterator[str]:
        """What the data sets of the row lack beside files and folders."""
        from mmdet.registry import DATASETS

        loaders = [cfg.train_dataloader, cfg.val_dataloader] if self.trains else []
        for loader in (*loaders, cfg.test_dataloader):
            data = dict(loader.dataset, check_images='error', pipeline=[])
            try:
                DATASETS.build(data).full_init()
            except FileNotFoundError as error:
                yield str(error)

    def clip(self, cfg: Config) -> tuple[str, str] | None:
        """Architecture and tag of CLIP's weights, if they are none of a file."""
        arch, tag = (
            cfg.model.visual_encoder.get(key) for key in ('arch', 'pretrained')
        )
        is_tag = self.trains and isinstance(arch, str) and tag is not None
        return (arch, tag) if is_tag and not Path(tag).exists() else None

    def run(self) -> None:
        """Take the steps that are not finished."""
        from projects.clip_vg.self_paced.launch import Job, launch_command, run_jobs

        settings: dict[str, Any] = dict(
            data_root=str(self.root), cfg_options=self.cfg_options()
        )
        settings['checkpoint'] = '' if self.trains else str(self.released)
        if self.args.overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        with lock_folder(self.folder):
            journal = self.folder / 'journal.jsonl'
            finished = read_journal(journal, settings)
            for name, script, arguments in self.commands():
                if name in finished:
                    continue
                log = self.folder / f'{name}.txt'
                logging.info('%s: %s, see %s', self.name, name, log)
                # The search starts the ranks of its own training runs.
                ranks = script in ('train.py', 'test.py')
                launcher = self.args.launcher if ranks else 'none'
                command = launch_command(
                    TOOLS / script, arguments, launcher, self.args.processes
                )
                for _, seconds in run_jobs([Job(command, str(log))]):
                    append_line(journal, dict(step=name, seconds=seconds))
            # Folders are named by the time: the last is that of the finished test.
            metrics = max((self.folder / 'test').glob('*/*.json'))
            with replacing(self.folder / 'result.json') as partial:
                shutil.copyfile(metrics, partial)

    def ours(self) -> list[float | None]:
        """Accuracy in % of each split; None where the row is not finished."""
        path = self.folder / 'result.json'
        if not path.is_file():
            return [None] * len(self.splits)
        metrics = json.loads(path.read_text(encoding='utf-8'))
        names = [f'{s}/' for s in self.splits] if len(self.splits) > 1 else ['']
        return [100 * metrics[f'grounding/{name}acc_0.5'] for name in names]


def select_rows(args: argparse.Namespace) -> list[Row]:
    """The rows that --only names, in the order of the paper."""
    names = [f'{kind}_{data}' for kind in KINDS for data in SETS]
    kept = [n for n in names if any(fnmatchcase(n, pattern) for pattern in args.only)]
    for pattern in args.only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f'--only {pattern}: no such row; expected a pattern or some of '
                f'{", ".join(names)}.'
            )
    return [Row(name, args) for name in kept]


def check(rows: Sequence[Row], configs: Sequence[Config]) -> None:
    """Refuse to begin where something is missing, all of it in one message."""
    paths = [p for row, cfg in zip(rows, configs, strict=True) for p in row.needs(cfg)]
    missing: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            fitting = (o for p, o in ORIGINS.items() if fnmatchcase(path.as_posix(), p))
            missing.setdefault(next(fitting), []).append(str(path))
    if missing:
        lines = ['\n  '.join([f'from {o}:', *names]) for o, names in missing.items()]
        raise FileNotFoundError(
            f'{sum(map(len, missing.values()))} files or folders were not found. '
            'Expected, or choose other rows by --only:\n' + '\n'.join(lines)
        )
    pairs = zip(rows, configs, strict=True)
    lacks = dict.fromkeys(
        text for row, cfg in pairs for text in row.missing_images(cfg)
    )
    if lacks:
        raise FileNotFoundError('\n'.join(lacks))


def fetch_clip(rows: Sequence[Row], configs: Sequence[Config], dry_run: bool) -> None:
    """Download CLIP's weights before the first row, or tell that they will be."""
    from projects.clip_vg.checkpoints.clip_weights import is_cached, resolve_weights

    pairs = zip(rows, configs, strict=True)
    for arch, tag in dict.fromkeys(filter(None, (r.clip(cfg) for r, cfg in pairs))):
        if not dry_run:
            resolve_weights(arch, tag)
        elif not is_cached(arch, tag):
            logging.info(
                'CLIP: %s of %s is not in the cache; it is downloaded first. Without a '
                'network, fetch it elsewhere (docs/tutorial_reproduce.md#get-clip) and '
                'give --cfg-options model.visual_encoder.pretrained=FILE '
                'model.text_encoder.pretrained=FILE',
                *(tag, arch),
            )


def write_table(rows: Sequence[Row], path: Path) -> str:
    """Write ours beside the paper's numbers, as Markdown."""
    lines = ["| row | split | ours, % | the paper's, % | difference | theirs is of |"]
    lines.append('|---|---|---|---|---|---|')
    for row in rows:
        for split, own, paper in zip(row.splits, row.ours(), row.paper, strict=True):
            cells = ['', f'{paper:.2f}', '', row.where]
            if own is not None:
                cells[0], cells[2] = f'{own:.2f}', f'{own - paper:+.2f}'
            lines.append(f'| {" | ".join([row.name, split, *cells])} |')
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return '\n'.join(lines)


def main() -> None:
    """Check, plan, run, and write the table."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    args = parse_args()
    rows = select_rows(args)
    table = args.work_dir / 'table.md'
    if not args.table:
        if args.smoke == 'shapes':
            from projects.clip_vg.synthetic.refcoco_layout import make_refcoco_layout

            make_refcoco_layout(args.data_root)
        configs = [row.load() for row in rows]
        for row, cfg in zip(rows, configs, strict=True):
            logging.info('%s', row.plan(cfg))
        check(rows, configs)
        fetch_clip(rows, configs, args.dry_run)
        if args.dry_run:
            logging.info('No data are missing. Without --dry-run it is run.')
            return
        for row in rows:
            row.run()
            write_table(rows, table)
    logging.info('%s', write_table(rows, table))
    if args.smoke:
        logging.info('A smoke run: every step works, and the accuracy means nothing.')


if __name__ == '__main__':
    run_command(main)
