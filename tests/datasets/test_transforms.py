"""Transforms: what is referred to stays where it is said to be."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from PIL import Image

from projects.clip_vg.datasets.transforms.expression_aware import mirror_text


def sample(height=40, width=60, box=(10, 5, 30, 25), text='a man', seed=0):
    rng = np.random.default_rng(seed)
    return dict(
        img=rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
        img_path='a.jpg',
        img_shape=(height, width),
        ori_shape=(height, width),
        gt_bboxes=HorizontalBoxes(torch.tensor([box], dtype=torch.float32)),
        gt_bboxes_labels=np.zeros(1, np.int64),
        gt_ignore_flags=np.zeros(1, bool),
        text=text,
    )


def build(**cfg):
    return TRANSFORMS.build(cfg)


def corners(results):
    return results['gt_bboxes'].tensor


def official_size(height, width, size, side='long'):
    """(height, width) as the official code: the ratio first, then rounded."""
    ratio = float(size / float((max if side == 'long' else min)(height, width)))
    return round(height * ratio), round(width * ratio)


@pytest.mark.parametrize('side', ['long', 'short'])
def test_resize_rounds_as_the_official_code(side):
    """Every height beside a side of 640 or 500 (COCO's, Flickr30k's), both ways."""
    resize = build(type='PILResize', size=224, side=side)
    for long in (500, 640):
        for short in range(max(32, long // 8), long + 1):
            for shape in ((short, long), (long, short)):
                results = dict(img=np.zeros(shape, np.uint8))
                expected = official_size(*shape, 224, side)
                assert resize(results)['img_shape'] == expected, shape
    assert official_size(330, 640, 224) == (115, 224)


@pytest.mark.parametrize('side', ['long', 'short'])
@pytest.mark.parametrize(('height', 'width'), [(40, 60), (60, 40), (33, 97), (7, 7)])
def test_resize_is_pil_and_keeps_boxes_in_place(side, height, width):
    before = sample(height, width)
    after = build(type='PILResize', size=50, side=side)(sample(height, width))
    reference = (max if side == 'long' else min)(height, width)
    rows, columns = official_size(height, width, 50, side)
    expected = Image.fromarray(before['img']).resize(
        (columns, rows), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(after['img'], np.asarray(expected))
    torch.testing.assert_close(corners(after), corners(before) * 50 / reference)
    assert after['scale_factor'] == (50 / reference, 50 / reference)


def test_resize_draws_among_its_sizes():
    sizes = {
        build(type='PILResize', size=[30, 40])(sample())['img_shape'][1]
        for _ in range(20)
    }
    assert sizes == {30, 40}


@pytest.mark.parametrize(('height', 'width'), [(40, 60), (60, 40), (59, 60), (60, 60)])
def test_letterbox_centres_as_released(height, width):
    after = build(type='Letterbox', size=60)(sample(height, width))
    left, top, kept_width, kept_height = after['letterbox']
    # Rounding of the release, which halves would otherwise leave open.
    assert top == max(0, round((60 - height) / 2 - 0.1))
    assert left == max(0, round((60 - width) / 2 - 0.1))
    assert (kept_width, kept_height) == (width, height)
    inside = after['img'][top : top + height, left : left + width]
    np.testing.assert_array_equal(inside, sample(height, width)['img'])
    assert after['img'].sum() == inside.sum()
    shift = torch.tensor([left, top, left, top])
    assert torch.equal(corners(after), corners(sample()) + shift)


def test_random_letterbox_stays_inside_and_moves():
    places = {
        build(type='Letterbox', size=60, placement='random')(sample())['letterbox']
        for _ in range(60)
    }
    assert {left for left, *_ in places} == {0}
    tops = {top for _, top, *_ in places}
    assert min(tops) >= 0 and max(tops) <= 20 and len(tops) > 10


def test_an_image_too_large_is_named():
    with pytest.raises(ValueError, match=r'a\.jpg is 40 x 60 .*square of 50'):
        build(type='Letterbox', size=50)(sample())


@pytest.mark.parametrize('seed', range(20))
def test_crop_keeps_the_centre_and_the_pixels_under_the_box(seed):
    np.random.seed(seed)
    rng = np.random.default_rng(seed)
    left, top = rng.uniform(0, 80, 2)
    box = (left, top, left + rng.uniform(4, 20), top + rng.uniform(4, 20))
    before = sample(100, 100, box)
    rows, columns = np.mgrid[:100, :100]
    before['img'] = np.stack([rows, columns, rows], -1).astype(np.uint8)
    after = build(type='ReferentCrop', min_size=30, max_size=60)(before)
    height, width = after['img'].shape[:2]
    assert 30 <= height <= 60 and 30 <= width <= 60
    # The image says how far it was moved.
    y0, x0 = (int(v) for v in after['img'][0, 0, :2])
    expected = np.array(box) - [x0, y0, x0, y0]
    center = (expected[:2] + expected[2:]) / 2
    assert (center >= 0).all() and (center <= [width, height]).all()
    clipped = expected.clip(0, [width, height, width, height])
    np.testing.assert_allclose(corners(after)[0], clipped, atol=1e-4)


def test_crop_of_a_group_keeps_all_centres_or_does_nothing():
    group = sample(100, 100)
    boxes = torch.tensor([[0.0, 0, 10, 10], [90.0, 90, 100, 100]])
    group['gt_bboxes'] = HorizontalBoxes(boxes)
    after = build(type='ReferentCrop', min_size=30, max_size=40)(group)
    assert after['img'].shape == (100, 100, 3)
    assert torch.equal(corners(after), boxes)


def coordinates(height, width):
    """An image whose pixels say where they come from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows], -1).astype(np.uint8)


def with_targets(counts, seed, size=(100, 120)):
    """A loaded sample of ``targets='any'``: expressions with so many boxes each."""
    rng = np.random.default_rng(seed)
    total = sum(counts)
    corner = rng.uniform(0, np.array(size)[::-1] - 21, (total, 2))
    boxes = np.hstack([corner, corner + rng.uniform(4, 20, (total, 2))])
    return dict(
        sample(*size),
        img=coordinates(*size),
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32)),
        gt_bboxes_labels=np.repeat(np.arange(len(counts)), counts),
        gt_ignore_flags=np.zeros(total, bool),
        text=[f'left t{number}' for number in range(len(counts))],
        num_targets=counts,
    )


@pytest.mark.parametrize('official', [False, True])
@pytest.mark.parametrize('counts', [[0], [0, 0], [3], [0, 2, 1], [2, 0, 4]])
def test_transforms_keep_all_targets_with_their_expressions(counts, official):
    """Each box goes where the pixels below it go, whatever the transforms draw."""
    crops = 0
    for seed in range(30):
        np.random.seed(seed)
        before = with_targets(counts, seed)
        expected = corners(before).numpy().copy()
        results = dict(before)
        for cfg in (
            dict(type='ReferentCrop', min_size=60, max_size=90, official=official),
            dict(type='TextAwareFlip', prob=0.5),
        ):
            results = build(**cfg)(results)
        height, width = results['img'].shape[:2]
        crops += (height, width) != (100, 120)
        top, left = results['img'][0, :, 0].min(), results['img'][0, :, 1].min()
        expected = (expected - np.tile([left, top], 2)).clip(
            0, [width, height, width, height]
        )
        if results['flip']:
            expected[:, [0, 2]] = width - expected[:, [2, 0]]
        np.testing.assert_allclose(corners(results), expected, atol=1e-4)
        side = 'right' if results['flip'] else 'left'
        ratio = 60 / max(height, width)
        for cfg in (
            dict(type='PILColorJitter'),
            dict(type='PILResize', size=60),
            dict(type='Letterbox', size=60, placement='random'),
            dict(type='PackGroundingInputs'),
        ):
            results = build(**cfg)(results)
        packed = results['data_samples']
        instances = packed.gt_instances
        assert packed.text == [f'{side} t{number}' for number in range(len(counts))]
        assert instances.labels.tolist() == before['gt_bboxes_labels'].tolist()
        assert instances.label_names == [packed.text[i] for i in instances.labels]
        moved = expected * ratio + np.tile(packed.letterbox[:2], 2)
        np.testing.assert_allclose(instances.bboxes.tensor, moved, atol=1e-4)
    assert crops > 3


def test_a_sample_that_has_lost_a_target_is_dropped():
    """MMDetection's crop leaves boxes out; the expressions would mean others then."""
    kept = dropped = 0
    for seed in range(20):
        np.random.seed(seed)
        before = with_targets([1, 0, 2], seed)
        crop = build(type='RandomCrop', crop_size=(70, 90), allow_negative_crop=True)
        results = crop(before)
        lost = len(results['gt_bboxes']) < 3
        packed = build(type='PackGroundingInputs')(results)
        if lost:
            assert packed is None
        else:
            assert packed['data_samples'].gt_instances.labels.tolist() == [0, 2, 2]
        kept, dropped = kept + (not lost), dropped + lost
    assert kept and dropped


def test_crop_of_a_small_image():
    after = build(type='ReferentCrop', min_size=384, max_size=600)(sample())
    assert after['img'].shape == (40, 60, 3)


def official_region(width, height, box, low, high, draw):
    """Left, top, width, height of the official code's RandomSizeCrop, or None."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for _ in range(20):
        w = draw(low, min(width, high))
        h = draw(low, min(height, high))
        i = draw(0, height - h)  # torchvision's RandomCrop.get_params
        j = draw(0, width - w)
        if x > i and y > j:
            return j, i, w, h
    return None


def with_places(width, height, box):
    """A sample whose pixels say where they come from: (row, column, row)."""
    results = sample(height, width, box)
    rows, columns = np.mgrid[:height, :width]
    results['img'] = np.stack([rows, columns, rows], -1).astype(np.uint8)
    return results


def test_the_official_crop_is_the_official_codes():
    rng = np.random.default_rng(0)
    lost = whole = 0
    crop = build(type='ReferentCrop', min_size=60, max_size=90, official=True)
    for _ in range(300):
        left, top = rng.uniform(-5, 100, 2)
        box = (left, top, left + rng.uniform(4, 50), top + rng.uniform(4, 20))
        seed = int(rng.integers(1 << 30))
        draw = np.random.RandomState(seed).randint
        region = official_region(
            140, 100, box, 60, 90, lambda a, b, draw=draw: int(draw(a, b + 1))
        )
        np.random.seed(seed)
        after = crop(with_places(140, 100, box))
        whole += region is None
        x, y, w, h = region or (0, 0, 140, 100)
        np.testing.assert_array_equal(
            after['img'], with_places(140, 100, box)['img'][y : y + h, x : x + w]
        )
        if region is None:
            continue
        expected = (np.array(box) - [x, y, x, y]).clip(0, [w, h, w, h])
        np.testing.assert_allclose(corners(after)[0], expected, atol=1e-4)
        centre = (np.array(box[:2]) + box[2:]) / 2 - [x, y]
        lost += not ((centre >= 0) & (centre <= [w, h])).all()
    assert lost > 10 and whole > 0  # what ours does not do


@pytest.mark.parametrize(
    ('text', 'free'),
    [
        ('man on the left', False),
        ('LEFTMOST man', False),
        ('top of it', False),
        (['a man', 'the middle one'], False),
        ('a man', True),
        (['a man', 'red one'], True),
    ],
)
def test_expressions_of_place_take_the_first_branch(text, free):
    choice = build(
        type='ExpressionAwareChoice',
        prob=[0.5, 0.5],
        transforms=[
            [dict(type='PILResize', size=20)],
            [dict(type='PILResize', size=30)],
        ],
    )
    sides = {choice(sample(text=text))['img_shape'][1] for _ in range(40)}
    assert sides == ({20, 30} if free else {20})


@pytest.mark.parametrize(
    ('text', 'mirrored'),
    [
        ('left man', 'right man'),
        ('Leftmost cup on the RIGHT', 'Rightmost cup on the LEFT'),
        ('bright one', 'bright one'),
        ('bright right light', 'bright left light'),
        ('standing upright', 'standing upright'),
        ('no side', 'no side'),
    ],
)
def test_mirrored_text(text, mirrored):
    assert mirror_text(text) == mirrored
    assert mirror_text(mirrored) == text


def test_flip_turns_image_box_and_text():
    before = sample(text=['left man', 'dog'])
    after = build(type='TextAwareFlip', prob=1.0)(sample(text=['left man', 'dog']))
    np.testing.assert_array_equal(after['img'], before['img'][:, ::-1])
    assert corners(after).tolist() == [[30, 5, 50, 25]]
    assert after['text'] == ['right man', 'dog']
    untouched = build(type='TextAwareFlip', prob=0.0)(sample(text='left man'))
    assert untouched['text'] == 'left man'


def test_jitter_changes_colours_and_keeps_channels_in_order():
    red = sample()
    red['img'] = np.zeros((8, 8, 3), np.uint8)
    red['img'][..., 2] = 200  # BGR
    after = build(type='PILColorJitter', prob=1.0)(red)['img']
    assert after.dtype == np.uint8 and after.shape == (8, 8, 3)
    assert (after[..., 2] > after[..., 0]).all()
    same = build(type='PILColorJitter', prob=0.0)(sample())['img']
    np.testing.assert_array_equal(same, sample()['img'])


def test_packing_names_the_boxes():
    packed = Compose([dict(type='PackGroundingInputs')])(sample(text='left man'))
    instances = packed['data_samples'].gt_instances
    assert instances.label_names == ['left man']
    assert instances.labels.tolist() == [0]


def test_one_target_each_is_packed_as_without_their_numbers():
    """Data of single targets are the same bit by bit, however they are read."""
    pack = build(type='PackGroundingInputs')
    for counts in ([1], [1, 1, 1]):
        plain = with_targets(counts, 3)
        plain.pop('num_targets')
        plain['gt_bboxes_labels'] = np.zeros(len(counts), np.int64)
        one, other = pack(plain), pack(with_targets(counts, 3))
        assert torch.equal(one['inputs'], other['inputs'])
        first, second = (p['data_samples'].gt_instances for p in (one, other))
        assert first.keys() == second.keys()
        assert torch.equal(first.bboxes.tensor, second.bboxes.tensor)
        assert first.labels.tolist() == second.labels.tolist() == [*range(len(counts))]
        assert first.label_names == second.label_names


@pytest.mark.parametrize(
    'text', ['left man. red car.', 'left man. red car', ' left man . red car . ']
)
def test_custom_entities_are_several_expressions(text):
    """As MMDetection's Grounding DINO reads them."""
    results = dict(sample(text=text), custom_entities=True)
    packed = Compose([dict(type='PackGroundingInputs')])(results)
    assert packed['data_samples'].text == ['left man', 'red car']


def test_resize_and_letterbox_are_undone_by_the_meta():
    """The way back that the detector goes, on corners of the box."""
    results = sample(33, 97)
    for cfg in (dict(type='PILResize', size=64), dict(type='Letterbox', size=64)):
        results = TRANSFORMS.build(cfg)(results)
    left, top = results['letterbox'][:2]
    back = corners(results) - torch.tensor([left, top, left, top])
    back = back / torch.tensor(results['scale_factor']).repeat(2)
    torch.testing.assert_close(back, corners(sample()))
