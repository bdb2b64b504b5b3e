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
    ],
)
def test_parts(text, expected):
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
