"""The command that publishes: its folder, and what the model card says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from mmdet.registry import MODELS
from mmengine.config import Config

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.checkpoints.checkpoint_config import check_detector_config
from projects.clip_vg.checkpoints.safe_loading import read_checkpoint
from projects.clip_vg.deployment.model_card import describe_data

from ..helpers import ROOT
from ..helpers.commands import call, tool

SCRIPT = 'model_converters/publish.py'  # in tools/
DEMO = ROOT / 'demo/clip_vg_tiny.pth'
IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


def front(folder):
    """The metadata of a card, and its text."""
    _, metadata, text = (folder / 'README.md').read_text().split('---\n', 2)
    return yaml.safe_load(metadata), text


def test_each_option_of_the_network_is_in_the_folder(variant, tmp_path):
    """LoRA, a prompt, several boxes, scores and their threshold."""
    model, cfg = variant
    path = tmp_path / 'variant.pth'
    torch.save(
        dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()), path
    )
    call(SCRIPT, path, '--out-dir', tmp_path / 'hub', '--repo-id', 'owner/variant')
    texts = ['left man', 'the dog', 'red bus']
    published, own = (
        infer(IMAGE, texts)['predictions'][0]
        for infer in (
            GroundingInferencer.from_pretrained(tmp_path / 'hub', device='cpu'),
            GroundingInferencer(path, device='cpu'),
        )
    )
    assert published == own and own['bboxes']
    metadata, text = front(tmp_path / 'hub')
    assert metadata['license'] == 'unknown' and 'model-index' not in metadata
    assert "from_pretrained('owner/variant')" in text
    assert '| boxes of an expression, at most | 5 |' in text
    assert 'adapted by lora' in text
    evaluation = text.partition('## Evaluation')[2].partition('## Licence')[0]
    assert not re.findall(r'\d', evaluation)  # none that were not given


@pytest.fixture(scope='module')
def tested(shapes, tmp_path_factory):
    """Work dir and metrics of a test of the demo checkpoint."""
    work_dir = tmp_path_factory.mktemp('tested')
    return work_dir, score(DEMO, shapes, work_dir)


def score(checkpoint, shapes, work_dir):
    """The file of metrics of a checkpoint."""
    tool(
        *('tools/test.py', 'configs/clip_vg_synthetic.py', checkpoint),
        *('--data-root', shapes, '--work-dir', work_dir),
    )
    (path,) = (p for p in work_dir.glob('*/*.json') if p.stem == p.parent.name)
    return path


def test_the_card_has_what_was_measured_and_it_is_measured_again(
    tested, shapes, tmp_path
):
    """Of a checkpoint without its frozen weights, which the folder has."""
    folder = tmp_path / 'hub'
    options = ['--metrics', tested[1], '--license', 'apache-2.0']
    call(SCRIPT, DEMO, '--out-dir', folder, *options)
    metrics = json.loads(tested[1].read_text())
    metadata, text = front(folder)
    assert metadata['license'] == 'apache-2.0'
    (results,) = metadata['model-index'][0]['results']
    assert results['dataset']['split'] == 'test'
    assert {f'grounding/{m["type"]}': m['value'] for m in results['metrics']} == {
        name: value for name, value in metrics.items() if 'time' not in name
    }
    # The hub's own reader.
    found = ModelCard.load(folder / 'README.md').data.eval_results
    assert len(found) == len(results['metrics']) == 5
    assert f'{metrics["grounding/acc_0.5"]:.4f}' in text
    assert 'python tools/test.py configs/clip_vg_synthetic.py DIR' in text
    assert (
        '| data | shapes/instances.json, shapes/refs(synthetic).p, split train' in text
    )
    assert '| epochs | 24 |' in text
    assert str(shapes) not in text and str(ROOT) not in text
    assert read_checkpoint(DEMO)['state_dict'].keys() < (
        read_checkpoint(folder / 'model.safetensors')['state_dict'].keys()
        | {'frozen_weights_sha256'}
    )
    again = json.loads(score(folder, shapes, tmp_path / 'again').read_text())
    assert {k: v for k, v in again.items() if 'time' not in k} == {
        k: v for k, v in metrics.items() if 'time' not in k
    }


def test_metrics_of_others_are_refused(tested, checkpoint, tmp_path):
    odd = tmp_path / 'odd' / 'odd.json'
    odd.parent.mkdir()
    config = odd.parent / 'vis_data' / 'config.py'
    run = ['--out-dir', tmp_path / 'hub', '--metrics']

    def refused(kind, *found, source=DEMO):
        with pytest.raises(kind) as caught:
            call(SCRIPT, source, *run, odd)
        assert all(part in str(caught.value) for part in found), caught.value

    refused(FileNotFoundError, str(odd))
    odd.write_text(json.dumps(dict(time=1.0, note='x', acc=float('nan'))))
    refused(FileNotFoundError, str(config))
    config.parent.mkdir()
    text = (tested[1].parent / 'vis_data/config.py').read_text()
    config.write_text(text)
    refused(ValueError, str(odd), "'note'")
    odd.write_text(json.dumps({'grounding/acc_0.5': 0.5}))
    refused(
        ValueError, str(odd), 'clip_vg_tiny.pth', str(checkpoint), source=checkpoint
    )
    ran = tmp_path / 'ran'
    config.write_text(f'{text}\nopen({str(ran)!r}, "w").close()\n')
    refused(ValueError, str(config))
    assert not ran.exists() and not (tmp_path / 'hub').exists()


def test_nothing_is_replaced_unasked(checkpoint, tmp_path):
    folder = tmp_path / 'hub'
    folder.mkdir()
    (folder / 'README.md').write_text('mine')
    with pytest.raises(FileExistsError, match='README.md'):
        call(SCRIPT, checkpoint, '--out-dir', folder)
    assert [path.name for path in folder.iterdir()] == ['README.md']
    call(SCRIPT, checkpoint, '--out-dir', folder, '--overwrite')
    assert 'GroundingInferencer' in (folder / 'README.md').read_text()
    with pytest.raises(SystemExit):
        call(SCRIPT, checkpoint, '--out-dir', tmp_path / 'x', '--license', 'my own: x')


def test_a_config_that_could_not_be_read_again_is_not_written(checkpoint, tmp_path):
    """Such as one that names a folder of this machine."""
    config = tmp_path / 'config.py'
    cfg = GroundingInferencer(checkpoint, device='cpu').cfg
    cfg.model.text_encoder.hf_folder = str(tmp_path)
    cfg.dump(config)
    with pytest.raises(ValueError, match='hf_folder'):
        call(SCRIPT, checkpoint, '--config', config, '--out-dir', tmp_path / 'hub')
    assert not (tmp_path / 'hub').exists()


def test_what_is_no_clip_vg_is_not_published(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta={}), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='ZeroShotGrounding'):
        call(
            *(SCRIPT, tmp_path / 'a.pth', '--out-dir', tmp_path / 'hub'),
            *('--config', ROOT / 'configs/zero_shot_synthetic.py'),
        )


@pytest.mark.parametrize(
    'name', ['clip_vg_refcoco', 'clip_vg_grefcoco', 'clip_vg_mixed_lora']
)
def test_our_configs_survive_json(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    pipeline = cfg.test_dataloader.dataset
    while 'pipeline' not in pipeline:
        pipeline = pipeline.datasets[0]
    plain = dict(model=cfg.model, test_dataloader=dict(dataset=pipeline))
    plain = Config(json.loads(json.dumps(Config(plain).to_dict())))
    check_detector_config(plain, name)
    with torch.device('meta'):
        read, own = MODELS.build(plain.model), MODELS.build(cfg.model)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (read, own)]
    assert shapes[0] == shapes[1]


def test_data_are_described_without_folders_of_this_machine():
    one = dict(data_root='/data', ann_file='refcoco/a.json', split=['val', 'testA'])
    two = dict(ann_file=[str(Path('/secret/b.jsonl')), 'c.jsonl'], split=None)
    dataset = dict(type='ConcatDataset', datasets=[one, dict(dataset=two)])
    assert describe_data(dataset) == [
        ('refcoco/a.json', 'val, testA'),
        ('b.jsonl, c.jsonl', ''),
    ]
    assert describe_data(None) == []
