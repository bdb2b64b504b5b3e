"""Tokens on disk: same results, no second pass, never those of another tower."""

import copy
import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from safetensors.torch import load_file

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg.models.visual_token_folder import VisualTokenFolder

from ..helpers.commands import FORKS
from ..helpers.configs import model_config
from ..helpers.models import initialised, make_batch, prepared, save_tiny


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    messages = []
    monkeypatch.setattr(
        'projects.clip_vg.models.visual_token_folder.print_log',
        lambda message, **_: messages.append(message),
    )
    return messages


def build(folder, seed=0, **changes):
    torch.manual_seed(seed)
    cfg = dict(model_config(**changes), visual_token_dir=folder)
    return initialised(MODELS.build(cfg))


def named_batch():
    torch.manual_seed(5)
    batch = make_batch()
    for number, sample in enumerate(batch['data_samples']):
        sample.set_metainfo(dict(img_path=f'{number}.jpg'))
    return batch


def count_images(model):
    """The numbers of images that the tower encodes from now on."""
    passes = []
    model.visual_encoder.register_forward_hook(
        lambda _, images, __: passes.append(len(images[0]))
    )
    return passes


def loss_of(model, batch):
    torch.manual_seed(2)  # dropout
    return sum(model.loss(*prepared(model.train(), batch, training=True)).values())


def predict(model, batch):
    with torch.inference_mode():
        found = model.eval().predict(*prepared(model, batch))
    return torch.cat([sample.pred_instances.bboxes for sample in found])


def files(folder):
    return sorted(folder.rglob('*.safetensors'))


def test_another_run_encodes_no_image_and_trains_and_predicts_alike(tmp_path):
    folder, batch = tmp_path / 'tokens', named_batch()
    plain, first, second = build(None), build(str(folder)), build(str(folder))
    wanted = loss_of(plain, batch), predict(plain, batch)
    assert predict(first, batch).equal(wanted[1])
    passes = count_images(second)
    assert loss_of(second, batch).equal(wanted[0])
    assert predict(second, batch).equal(wanted[1])
    assert passes == []
    assert (second.visual_cache.hits, second.visual_cache.misses) == (8, 0)
    assert len(files(folder)) == 4
    assert not [*folder.rglob('.partial*')]


def test_new_images_alone_are_encoded(tmp_path):
    batch = named_batch()
    half = dict(inputs=batch['inputs'][:2], data_samples=batch['data_samples'][:2])
    predict(build(str(tmp_path)), half)
    model = build(str(tmp_path))
    passes = count_images(model)
    torch.testing.assert_close(predict(model, batch), predict(build(None), batch))
    assert passes == [2]


@pytest.mark.parametrize(
    'changed',
    [
        dict(seed=1),
        dict(visual_encoder=dict(extract_layers=(1, 0))),
        dict(visual_encoder=dict(compute_dtype='bfloat16')),
        dict(data_preprocessor=dict(mean=[0.0, 0.0, 0.0])),
        dict(data_preprocessor=dict(bgr_to_rgb=False)),
    ],
    ids=['weights', 'layers', 'dtype', 'mean', 'channels'],
)
def test_another_tower_or_input_has_tokens_of_its_own(tmp_path, changed):
    batch = named_batch()
    predict(build(str(tmp_path)), batch)
    other = build(str(tmp_path), **changed)
    assert predict(other, batch).equal(predict(build(None, **changed), batch))
    assert other.visual_cache.hits == 0
    assert len({file.parent.parent for file in files(tmp_path)}) == 2


def test_another_precision_has_tokens_of_its_own(tmp_path):
    batch, model = named_batch(), build(str(tmp_path))
    predict(model, batch)
    with torch.autocast('cpu', torch.bfloat16):
        predict(model, batch)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('medium' if before != 'medium' else 'high')
    predict(model, batch)
    torch.set_float32_matmul_precision(before)
    assert model.visual_cache.hits == 0


def test_a_folder_of_tokens_tells_whose_they_are(tmp_path):
    predict(build(str(tmp_path)), named_batch())
    (told,) = [json.loads(file.read_text()) for file in tmp_path.rglob('tower.json')]
    assert told['settings']['visual_encoder']['extract_layers'] == [0, 1]
    precision = torch.get_float32_matmul_precision()
    assert told['computed'] == ['torch.float32', 'cpu', '', precision]
    assert len(told['weights_sha256']) == 64
    tokens = load_file(files(tmp_path)[0])['tokens']
    assert tokens.shape == (17, 64)  # 1 + 4 x 4 patches, two levels of 32


def test_a_broken_file_is_encoded_again_and_replaced(tmp_path, said):
    batch = named_batch()
    wanted = predict(build(str(tmp_path)), batch)
    broken = files(tmp_path)[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    model = build(str(tmp_path))
    torch.testing.assert_close(predict(model, batch), wanted)
    assert str(broken) in said[0]
    assert broken.read_bytes() != whole[:100]
    assert len(broken.read_bytes()) == len(whole)


def test_augmented_images_are_not_stored_for_ever(tmp_path, said):
    model = build(str(tmp_path))
    for seed in range(20):
        batch = named_batch()
        torch.manual_seed(seed)
        batch['inputs'] = make_batch()['inputs']
        loss_of(model, batch)
    # Four images a batch: of the 64 that came again after the first, all are new.
    assert len(files(tmp_path)) == 4 + 60
    assert ['64 of 64' in message for message in said] == [True]


def test_images_that_are_flipped_at_times_are_stored(tmp_path, said):
    model = build(str(tmp_path))
    for turn in range(20):
        batch = named_batch()
        if turn % 2:
            batch['inputs'] = [image.flip(2) for image in batch['inputs']]
        loss_of(model, batch)
    assert len(files(tmp_path)) == 8
    assert said == []


def test_a_full_disk_stops_no_training(tmp_path, said, monkeypatch):
    usage = type('Usage', (), dict(free=1000))
    monkeypatch.setattr('shutil.disk_usage', lambda _: usage)
    model = build(str(tmp_path))
    assert loss_of(model, named_batch()).equal(loss_of(build(None), named_batch()))
    loss_of(model, named_batch())
    assert files(tmp_path) == []
    assert ['1,000 bytes are free' in message for message in said] == [True]


@pytest.mark.parametrize(
    'changed',
    [dict(frozen=False), dict(adapter=dict(kind='bias')), dict(train_pos_embed=True)],
    ids=['all', 'adapter', 'positions'],
)
def test_a_trained_tower_keeps_nothing_and_says_so(tmp_path, said, changed):
    model = build(str(tmp_path), visual_encoder=changed)
    loss_of(model, named_batch()).backward()
    predict(model, named_batch())  # its validation
    assert any(p.grad is not None for p in model.visual_encoder.parameters())
    assert files(tmp_path) == []
    assert len(said) == 1


def test_batch_augmentation_keeps_nothing_in_training(tmp_path, said):
    pad = dict(type='BatchFixedSizePad', size=(32, 32))
    model = build(str(tmp_path), data_preprocessor=dict(batch_augments=[pad]))
    loss_of(model, named_batch())
    assert files(tmp_path) == []
    assert ['batch_augments' in message for message in said] == [True]


def write_tokens(folder, precision):
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(precision)
    init_default_scope('mmdet')
    for _ in range(3):
        model = build(folder)
        model.visual_cache._find = lambda *_: {}  # writes every time
        predict(model, named_batch())


def test_processes_write_the_same_folder_at_once(tmp_path):
    # Another one would have a folder of its own.
    own = str(tmp_path), torch.get_float32_matmul_precision()
    workers = [FORKS.Process(target=write_tokens, args=own) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert predict(build(str(tmp_path)), named_batch()).equal(
        predict(build(None), named_batch())
    )
    assert len(files(tmp_path)) == 4
    assert not [*tmp_path.rglob('.partial*')]


@pytest.mark.parametrize('given', ['checkpoint', 'config'])
def test_an_inferencer_keeps_no_images_of_visitors(tmp_path, given):
    folder = tmp_path / 'tokens'
    checkpoint = save_tiny(tmp_path / 'a.pth', 0)
    stored = torch.load(checkpoint, weights_only=False)
    stored['meta']['cfg'] = stored['meta']['cfg'].replace(
        "type='CLIPVG'", f"type='CLIPVG', visual_token_dir={str(folder)!r}"
    )
    assert str(folder) in stored['meta']['cfg']
    torch.save(stored, checkpoint)
    (tmp_path / 'a.py').write_text(stored['meta']['cfg'])
    models = [tmp_path / 'a.py', checkpoint] if given == 'config' else [checkpoint]
    for cache in (0, 10):
        infer = GroundingInferencer(*models, device='cpu', cache_mib=cache)
        infer(torch.zeros(24, 32, 3, dtype=torch.uint8).numpy(), 'dog')
    assert not folder.exists()


def test_a_copy_looks_in_the_same_folder(tmp_path):
    model = build(str(tmp_path))
    predict(model, named_batch())
    copied = copy.deepcopy(model)  # as EMAHook makes it
    assert isinstance(copied.visual_cache, VisualTokenFolder)
    predict(copied, named_batch())
    assert copied.visual_cache.hits == 4
