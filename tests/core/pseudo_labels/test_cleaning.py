"""Cleaning: invalid and small boxes and doubles go, each for its own reason alone."""

from collections import Counter
from dataclasses import replace

import pytest

from projects.clip_vg_core.pseudo_labels.cleaning import (
    clean_detections,
    drop_overlapping,
    drop_small,
    inside_image,
)
from projects.clip_vg_core.pseudo_labels.detection import Detection, intersection, iou

from ...helpers.scenes import SIZE, VOCABULARY, at, scattered, scene, shuffled

NAN = float('nan')
# One class of each group, clothes as one group (specification 1.1).
GROUPS = dict(people='woman', things='dog', clothes='jacket')


def kept(*detections, size=SIZE, **options):
    found = clean_detections(scene(*detections, size=size), VOCABULARY, **options)
    return [item for items in found.values() for item in items]


@pytest.mark.parametrize(
    'box',
    [
        (300, 100, 100, 300),  # right before left
        (100, 300, 300, 100),  # bottom before top
        (100, 100, 100, 300),  # no width
        (100, 300, 300, 300),  # no height
        (100, 100, 100.9, 300),  # less than a pixel
        (100, 100, 300, 100.9),
        (NAN, 100, 300, 300),
        (100, 100, NAN, 300),
        (100, NAN, 300, 300),
        (100, 100, 300, NAN),
        (-300, 100, 0, 300),  # left of the image
        (640, 100, 900, 300),  # right of it
        (100, 480, 300, 700),  # below it
    ],
)
@pytest.mark.parametrize('name', GROUPS.values())
def test_invalid_boxes_are_dropped(box, name):
    good = at(320, 240, 'cat')
    assert kept(Detection(name, box), good) == [good]
    assert inside_image([Detection(name, box), good], *SIZE) == [good]


def test_valid_boxes_are_cut_at_the_border_of_the_image():
    whole = (0, 0, *SIZE)
    for item in scattered(0, ['dog'], 60, size=(1200, 1200)):
        item = replace(item, box=tuple(edge - 300 for edge in item.box))
        x1, y1, x2, y2 = item.box
        sides = min(x2, 640) - max(x1, 0), min(y2, 480) - max(y1, 0)
        cut = inside_image([item], *SIZE)
        assert len(cut) == (min(sides) >= 1)
        for found in cut:
            assert found.area == pytest.approx(sides[0] * sides[1])
            assert intersection(found.box, whole) == pytest.approx(found.area)
            assert replace(found, box=item.box) == item


@pytest.mark.parametrize(
    ('name', 'height', 'stays'),
    [
        # 640 x 480 / 64 is 60 x 80.
        ('woman', 80, True),
        ('woman', 79.99, False),
        ('dog', 80, True),
        ('dog', 79.99, False),
        ('jacket', 2, True),
        ('cap', 2, True),
        ('jeans', 2, True),
        ('boots', 2, True),
    ],
)
def test_people_and_things_below_a_64th_of_the_image_are_dropped(name, height, stays):
    item = at(320, 240, name, (60, height))
    assert kept(item) == [item] * stays


def test_the_least_size_is_an_option_and_a_share():
    items = [at(10 + 20 * i, 50, size=(10, 10 * i)) for i in (1, 2, 3, 4)]
    for share in (0, 0.01, 0.02, 0.025, 0.04, 0.1):
        large = [item for item in items if item.area / 10_000 >= share]
        assert drop_small(items, ['things'] * 4, 10_000, share) == large
        assert kept(*items, size=(100, 100), min_area=share) == large
        assert drop_small(items, ['hat'] * 4, 10_000, share) == items


# 40 / (70 + 70 - 40) is 0.4; a box of 70 that is 30 to the right has it.
AT_THE_LIMIT = ((100, 100, 170, 200), (130, 100, 200, 200))
ABOVE = ((100, 100, 170, 200), (129.9, 100, 199.9, 200))


@pytest.mark.parametrize('name', GROUPS.values())
def test_only_an_iou_above_the_limit_makes_a_double(name):
    for boxes, count in ((AT_THE_LIMIT, 2), (ABOVE, 1)):
        items = [
            Detection(name, box, score)
            for box, score in zip(boxes, (0.5, 0.6), strict=True)
        ]
        assert kept(*items) == items[-count:]
        assert kept(*items[::-1]) == items[::-1][:count]


def test_the_largest_iou_is_an_option():
    items = [at(100 + shift, 100, size=(100, 100), score=0.5) for shift in (0, 20)]
    overlap = iou(*(item.box for item in items))
    assert kept(*items, max_iou=overlap + 1e-9) == items
    assert kept(*items, max_iou=overlap - 1e-9) == items[:1]


@pytest.mark.parametrize('count', [2, 3, 7])
def test_of_equally_sure_doubles_the_first_stays(count):
    doubles = [at(100 + i, 100, f'dog {i}', score=0.5) for i in range(count)]
    assert kept(*doubles) == doubles[:1]


@pytest.mark.parametrize(
    ('one', 'other', 'doubles'),
    [
        ('man', 'woman', True),
        ('dog', 'wine glass', True),
        ('jacket', 'coat', True),
        ('cap', 'jeans', True),  # clothes are one group
        ('woman', 'dog', False),
        ('woman', 'jacket', False),
        ('dog', 'boots', False),
    ],
)
def test_doubles_are_found_among_all_classes_of_a_group_alone(one, other, doubles):
    surer, other = at(100, 100, one, score=0.9), at(100, 100, other, score=0.8)
    assert set(kept(surer, other)) == ({surer} if doubles else {surer, other})


def spec_doubles(items, limit):
    """What 1.3 drops, pair by pair."""
    return [
        item
        for place, item in enumerate(items)
        if any(
            iou(item.box, other.box) > limit
            and (other.score > item.score or (other.score == item.score and i < place))
            for i, other in enumerate(items)
            if other is not item
        )
    ]


@pytest.mark.parametrize('seed', range(10))
def test_doubles_leave_no_overlap_and_fall_only_to_a_surer_one(seed):
    items = scattered(seed, ['dog', 'cat'], 25)
    found = drop_overlapping(items, 0.2)
    assert [item for item in items if item in found] == found  # in the order given
    assert not spec_doubles(found, 0.2)
    gone = [item for item in items if item not in found]
    assert gone and set(gone) <= set(spec_doubles(items, 0.2))


CHAIN = [at(100 + 30 * i, 100, size=(100, 100), score=0.9 - i / 10) for i in range(3)]


def test_a_dropped_box_still_drops_what_is_less_sure():
    first, second, third = CHAIN
    assert iou(first.box, second.box) > 0.4 and iou(second.box, third.box) > 0.4
    assert iou(first.box, third.box) < 0.4
    assert drop_overlapping(CHAIN, 0.4) == [first]


@pytest.mark.parametrize('seed', range(5))
def test_the_order_of_the_detections_does_not_matter(seed):
    names = ['man', 'woman', 'dog', 'cup', 'jacket', 'cap']
    items = scattered(seed, names, 20)
    assert set(kept(*shuffled(items, seed))) == set(kept(*items))


def test_everything_is_in_the_group_of_its_class():
    names = ['woman', 'dog', 'jacket', 'cap', 'jeans', 'boots', 'man', 'cup']
    items = [at(60 + 70 * i, 240, name, (60, 80)) for i, name in enumerate(names)]
    found = clean_detections(scene(*items), VOCABULARY)
    assert {group: [item.name for item in of] for group, of in found.items()} == dict(
        people=['woman', 'man'],
        things=['dog', 'cup'],
        shirt=['jacket'],
        hat=['cap'],
        pants=['jeans'],
        shoes=['boots'],
    )


@pytest.mark.parametrize('seed', range(5))
def test_what_is_dropped_is_counted_once(seed):
    items = [
        *scattered(seed, ['man', 'dog', 'jacket'], 20, size=(900, 600)),
        *(at(60 * i, 240, 'man', (10, 10)) for i in range(1, 4)),
        *(Detection('dog', (9, 9, 3, 30)), Detection('background', (0, 0, 99, 99))),
    ]
    dropped = Counter()
    found = clean_detections(scene(*items), VOCABULARY, dropped=dropped)
    assert sum(dropped.values()) == len(items) - sum(map(len, found.values()))
    assert dropped['background'] == 1
    assert dropped['too small'] >= 3 and dropped['overlapping'] >= 1


def test_nothing_comes_of_nothing():
    assert clean_detections(scene(), VOCABULARY) == {}
