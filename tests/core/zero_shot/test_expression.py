"""Expressions parsed by word lists."""

import pytest

from projects.clip_vg_core.zero_shot.expression import ParsedExpression as Parsed
from projects.clip_vg_core.zero_shot.expression import parse_expression


@pytest.mark.parametrize(
    'text, expected',
    [
        ('red car', Parsed('red car')),
        ('The man with a hat', Parsed('man with a hat')),
        ('left man', Parsed('man', ('left',))),
        ('man on the left side', Parsed('man', ('left',))),
        ('guy on left of the picture', Parsed('guy', ('left',))),
        ('top left star', Parsed('star', ('top', 'left'))),
        ('in the middle', Parsed('', ('middle',))),
        ('biggest thing', Parsed('', size='largest')),
        ('tallest guy in the back', Parsed('guy', ('back',), 'tallest')),
        ('second woman from the right', Parsed('woman', ('right',), rank=2)),
        ('first base', Parsed('first base')),  # a number of no order
        ('dog closest to us', Parsed('dog', ('front',))),
        ('object above all others', Parsed('', ('top',))),
        ('circle right of everything else', Parsed('circle', ('right',))),
        ('there is a big star at the top', Parsed('star', ('top',), 'largest')),
        ('cup on the table', Parsed('cup', relation='on', anchor=Parsed('table'))),
        (
            'dog on the left hand side of a couch',
            Parsed('dog', relation='left of', anchor=Parsed('couch')),
        ),
        (
            'kid standing next to the man on the right',
            Parsed('kid standing', (), None, 1, 'next to', Parsed('man', ('right',))),
        ),
        (
            'cup on the plate under the lamp',
            Parsed(
                *('cup', (), None, 1, 'on'),
                Parsed('plate', relation='below', anchor=Parsed('lamp')),
            ),
        ),
        ('little girl', Parsed('girl', size='smallest')),
        ('banana closest to you', Parsed('banana', ('front',))),
        ('hot dog with onions on it', Parsed('hot dog with onions')),
    ],
)
def test_parts(text, expected):
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    'text, anchor, other',
    [
        ('star between the circle and the square', 'circle', 'square'),
        ('star in between a circle and a square', 'circle', 'square'),
        ('star that is between circle and square', 'circle', 'square'),
        ('star between the black and white dog and the cat', 'black white dog', 'cat'),
        ('star between the two men', 'men', 'men'),
        ('star between both of the men', 'men', 'men'),
    ],
)
def test_between_has_two_anchors(text, anchor, other):
    parsed = parse_expression(text)
    assert (parsed.head, parsed.relation) == ('star', 'between')
    assert parsed.anchor.head.replace(' and', '') == anchor
    assert parsed.other == Parsed(other)
    assert parsed.heads[-1] == other


def test_anchors_of_between_are_parsed_likewise():
    parsed = parse_expression('star between the left man and the dog on the couch')
    assert parsed.anchor == Parsed('man', ('left',))
    assert parsed.other == Parsed('dog', relation='on', anchor=Parsed('couch'))
    assert parsed.heads == ('star', 'man', 'dog', 'couch')
    assert parse_expression('man between the others') == Parsed('man', ('middle',))
    assert parse_expression('man between the other two') == Parsed('man', ('middle',))


@pytest.mark.parametrize(
    'text, expected',
    [
        (
            'big star not between the circle and the square',
            Parsed('star', size='largest'),
        ),
        ("star that isn't between the circles", Parsed('star')),
        ('the cup that is not on the table', Parsed('cup')),
        ('dog not next to the man', Parsed('dog')),
        ('man not on the left', Parsed('man')),
        (
            'right man, not the one with a hat',
            Parsed('man not the one with a hat', ('right',)),
        ),
        ('knot on the rope', Parsed('knot', relation='on', anchor=Parsed('rope'))),
        ('between', Parsed('between')),
    ],
)
def test_what_is_denied_is_no_relation_and_no_place(text, expected):
    assert parse_expression(text) == expected


@pytest.mark.parametrize('text', ['', '!?', 'left', 'the', '日本', 'of the', 'on'])
def test_any_text_is_parsed(text):
    parsed = parse_expression(text)
    assert parsed.relation is None
    assert parsed.head in ('', '日本', 'on')


def test_heads_are_those_of_the_chain_each_once():
    parsed = parse_expression('star left of the star above the red square')
    assert parsed.heads == ('star', 'red square')
    assert parse_expression('thing next to an object').heads == ()


def test_the_noun_ends_before_what_describes_it():
    assert parse_expression('left man in a blue shirt').noun == 'man'
