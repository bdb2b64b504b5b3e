"""Clothes: who wears what, by what is inside whom and at which height."""

import pytest

from projects.clip_vg_core.pseudo_labels.detection import Detection, intersection
from projects.clip_vg_core.pseudo_labels.template import dress, is_worn
from projects.clip_vg_core.pseudo_labels.vocabulary import CLOTHES

from ...helpers.scenes import at, scattered, shuffled

# 100 x 200, from (0, 0): shares and heights are read off.
PERSON = Detection('woman', (0, 0, 100, 200))
HEIGHT = dict(hat=20, shirt=80, pants=150, shoes=190)  # where a slot's centre may be


@pytest.mark.parametrize('slot', CLOTHES)
@pytest.mark.parametrize(
    ('x', 'worn'),
    [
        (50, True),
        (89, True),  # 31 of 40 pixels are inside
        (90, False),  # 30 of 40: exactly 0.75
        (91, False),
        (11, True),
        (10, False),
        (200, False),
    ],
)
def test_more_than_three_quarters_of_a_cloth_must_be_inside(slot, x, worn):
    assert is_worn(slot, at(x, HEIGHT[slot], slot, (40, 20)), PERSON) is worn


@pytest.mark.parametrize(
    ('slot', 'highest', 'lowest'),
    [
        ('hat', 0, 49),
        ('shirt', 0, 200),
        ('pants', 101, 200),
        ('shoes', 0, 200),
    ],
)
@pytest.mark.parametrize('y', [0, 20, 49, 50, 51, 99, 101, 150, 180, 200])
def test_hats_are_in_the_top_quarter_and_pants_in_the_lower_half(
    slot, highest, lowest, y
):
    cloth = Detection(slot, (40, max(0, y - 5), 60, min(200, y + 5)))
    cloth_center = cloth.center[1]
    assert is_worn(slot, cloth, PERSON) is (highest <= cloth_center <= lowest)


@pytest.mark.parametrize(('top', 'height'), [(0, 200), (90, 100), (300, 40)])
def test_the_top_quarter_is_strict_and_of_the_person_not_of_the_image(top, height):
    person = Detection('man', (0, top, 100, top + height))
    quarter = top + height / 4
    for y, worn in ((quarter, False), (quarter - 1, True)):
        assert is_worn('hat', at(50, y, 'hat', (20, 4)), person) is worn


@pytest.mark.parametrize('inside', [0.0, 0.2, 0.5, 0.9])
def test_how_much_must_be_inside_is_an_option(inside):
    for x in range(80, 125, 5):
        cloth = at(x, 100, 'shirt', (40, 20))
        share = intersection(cloth.box, PERSON.box) / cloth.area
        assert is_worn('shirt', cloth, PERSON, inside) is (share > inside)


def test_how_much_must_be_inside_moves_no_hat():
    low = at(50, 80, 'hat', (20, 10))
    assert not is_worn('hat', low, PERSON)
    assert not is_worn('hat', low, PERSON, 0.5)


def spec_worn(slot, cloth, person):
    """1.5, as it stands there."""
    left, top, right, bottom = person.box
    x1, y1, x2, y2 = cloth.box
    width = max(0, min(x2, right) - max(x1, left))
    height = max(0, min(y2, bottom) - max(y1, top))
    inside = width * height / ((x2 - x1) * (y2 - y1)) > 0.75
    from_below = (bottom - (y1 + y2) / 2) / (bottom - top)
    fits = dict(hat=from_below > 0.75, pants=from_below < 0.5)
    return inside and fits.get(slot, True)


def wardrobe(seed, count):
    """People, and small clothes of every slot all over them."""
    people = scattered(seed, ['man', 'woman'], 4, size=(300, 300))
    pieces = scattered(seed + 100, list(CLOTHES), count, size=(300, 300))
    pieces = [at(*p.center, p.name, (30, 20), score=p.score) for p in pieces]
    clothes = {slot: [p for p in pieces if p.name == slot] for slot in CLOTHES}
    return people, clothes


@pytest.mark.parametrize('seed', range(8))
def test_everyone_wears_what_fits_and_the_surest_of_each_slot(seed):
    people, clothes = wardrobe(seed, 60)
    found = dress(people, clothes)
    for person, worn in zip(people, found, strict=True):
        for slot, pieces in clothes.items():
            fitting = [p for p in pieces if spec_worn(slot, p, person)]
            mine = [piece for piece in worn if piece.name == slot]
            assert set(mine) <= set(fitting)
            assert mine[:1] == sorted(fitting, key=lambda p: -p.score)[:1]
    assert len(sum(found, [])) > 3


def test_a_shirt_and_a_jacket_are_both_worn():
    pieces = [at(50, 70, 'shirt', score=0.9), at(50, 120, 'jacket', score=0.8)]
    assert dress([PERSON], dict(shirt=pieces)) == [pieces]


def test_neither_the_order_of_the_people_nor_of_the_clothes_matters():
    people, clothes = wardrobe(3, 60)
    worn = dict(zip(people, dress(people, clothes), strict=True))
    mixed = {slot: shuffled(pieces, 1) for slot, pieces in clothes.items()}
    turned = people[::-1]
    assert dict(zip(turned, dress(turned, mixed), strict=True)) == worn


def test_without_people_or_clothes_nobody_wears_anything():
    assert dress([], dict(hat=[at(50, 50)])) == []
    assert dress([PERSON, PERSON], {}) == [[], []]
