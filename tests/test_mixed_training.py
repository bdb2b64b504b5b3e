"""Five data sets trained on and tested at once, by the config as it stands."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from projects.clip_vg.engine import run_check_hook
from projects.clip_vg.engine.run_check_hook import find_leaks

from .helpers import ROOT
from .helpers.configs import ARCH
from .helpers.five_sets import REFER, WORDS, make_five_sets


@pytest.fixture(scope='module')
def five_sets(tmp_path_factory):
    return make_five_sets(tmp_path_factory.mktemp('five'))


def config(root, work_dir):
    cfg = Config.fromfile(ROOT / 'configs/clip_vg_mixed.py')
    for key in ('train', 'val', 'test'):
        loader = cfg[f'{key}_dataloader']
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(root)
    for encoder in ('visual_encoder', 'text_encoder'):
        cfg.model[encoder].update(arch=ARCH, pretrained=None)
    cfg.model.visual_encoder.update(extract_layers=(0, 1), image_size=224)
    cfg.model.fusion.update(num_layers=1, num_heads=4, feedforward_channels=32)
    cfg.train_cfg.max_epochs = 1
    cfg.update(work_dir=str(work_dir), log_level='ERROR')
    return cfg


def test_labels_of_test_images_are_dropped_and_all_sets_are_scored(five_sets, tmp_path):
    cfg = config(five_sets, tmp_path)
    runner = Runner.from_cfg(cfg)
    table = runner.train_loop.dataloader.dataset.table
    left = {
        (table.source_names[s], table.images[i])
        for s, i in zip(table.sources, table.image_index, strict=True)
    }
    # Only the first COCO image is held out by none; numbered images stay.
    coco = f'coco/train2014/COCO_train2014_{0:012d}.jpg'
    assert left == {
        *((name, coco) for name in ('refcoco', 'refcoco+', 'refcocog')),
        *(('referit', f'referit/images/{i}.jpg') for i in (1, 2, 3)),
        *(('flickr30k', f'flickr30k/flickr30k-images/{i}.jpg') for i in (5, 6, 7)),
    }
    assert len(table) == 3 * len(WORDS) + 6
    runner.train()
    metrics = runner.test()
    scored = {key.removesuffix('/acc_0.5') for key in metrics if '/acc_0.5' in key}
    sets = ['refcoco', 'refcoco_', 'refcocog', 'referit', 'flickr30k']
    pairs = {f'{name}/{split}' for name in sets for split in ('val', 'test')}
    pairs -= {'refcoco/test', 'refcoco_/test'}
    pairs |= {f'{name}/{part}' for name in sets[:2] for part in ('testA', 'testB')}
    groups = {*sets, *pairs, 'val', 'test', 'testA', 'testB'}
    assert scored == {'grounding', *(f'grounding/{name}' for name in groups)}
    # The whole is the mean of the parts, weighted by their labels.
    counts = dict.fromkeys(pairs, 1)
    for pair in pairs:
        name, split = pair.split('/')
        if name.startswith('refcoco'):
            place = next(p for p in REFER if p.startswith(name.replace('_', '+') + '/'))
            counts[pair] = len(WORDS) * REFER[place].count(split)
    counts['referit/test'] = counts['flickr30k/val'] = 2
    total = sum(counts.values())
    mean = sum(metrics[f'grounding/{p}/miou'] * n for p, n in counts.items()) / total
    assert metrics['grounding/miou'] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize('on_leak', ['error', 'warn', 'ignore'])
def test_leaks_that_are_not_dropped_are_told(on_leak, five_sets, tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(
        run_check_hook, 'print_log', lambda text, **_: texts.append(text)
    )
    cfg = config(five_sets, tmp_path)
    cfg.train_dataloader.dataset.held_out = ()
    cfg.default_hooks.run_check.on_leak = on_leak
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.default_hooks.checkpoint.save_best = None
    runner = Runner.from_cfg(cfg)
    # Ten refs of COCO's images, two sentences each, but for three of the first image.
    expected = '14 of 26 training labels are of 5 images'
    if on_leak == 'error':
        with pytest.raises(ValueError, match=f'{expected}.*the test data'):
            runner.train()
        assert not list(tmp_path.glob('*.pth'))
    else:
        runner.train()
        assert any(expected in text for text in texts) == (on_leak == 'warn')


def test_the_share_of_each_set_is_its_weight(five_sets, tmp_path):
    cfg = config(five_sets, tmp_path)
    weights = {'refcoco': 2, 'refcoco+': 0, 'refcocog': 1, 'referit': 1, 'flickr30k': 0}
    cfg.train_dataloader.sampler.update(weights=weights, epoch_length=40)
    loader = Runner.from_cfg(cfg).train_loop.dataloader
    table = loader.dataset.table
    drawn = [table.source_names[table.sources[i]] for i in loader.sampler]
    counts = {name: drawn.count(name) for name in weights}
    assert counts == {name: 10 * weight for name, weight in weights.items()}


def test_splits_are_named_for_each_source(five_sets, tmp_path):
    cfg = config(five_sets, tmp_path)
    del cfg.test_dataloader.dataset.split['referit']
    cfg.test_dataloader.dataset.split['refclef'] = ['val']
    with pytest.raises(ValueError, match=r'refclef.*referit'):
        Runner.from_cfg(cfg).test_loop  # noqa: B018  # it builds the data


def test_images_are_the_same_by_coco_number_or_by_path(five_sets, tmp_path):
    runner = Runner.from_cfg(config(five_sets, tmp_path))
    training = runner.train_loop.dataloader.dataset
    assert not list(find_leaks(training, dict(val=runner.val_loop.dataloader.dataset)))
    (leak,) = find_leaks(training, dict(itself=training))
    assert f'{len(training)} of {len(training)}' in leak and 'itself' in leak
