"""Word lists: who is a person, what is worn, what is the same, what is English."""

import itertools
import json

import pytest
from mmdet.datasets import CocoDataset, LVISV1Dataset

from projects.clip_vg_core.pseudo_labels.vocabulary import (
    CLOTHES,
    OFFICIAL_GROUPS,
    PEOPLE,
    THINGS,
    Vocabulary,
    is_english,
)

from ...helpers.scenes import VOCABULARY

EXAMPLES = dict(  # specification 1.1
    people='person man woman boy girl kid child player baby guy lady',
    hat='cap helmet visor headband glasses',
    shoes='shoe sneakers boots sandals cleats socks',
    shirt='shirt',
    pants='pants',
    things='dog cup car',
)


@pytest.mark.parametrize('group', EXAMPLES)
def test_classes_are_in_the_groups_of_the_specification(group):
    for name in EXAMPLES[group].split():
        assert VOCABULARY.group_of(name) == group


def test_the_slots_of_clothes_are_those_of_the_specification():
    assert set(CLOTHES) == {'hat', 'shirt', 'pants', 'shoes'}
    assert set(VOCABULARY.groups) == {PEOPLE, THINGS, *CLOTHES}


def test_no_class_is_in_two_groups():
    for one, other in itertools.combinations(VOCABULARY.groups.values(), 2):
        assert not set(one) & set(other)


def test_the_official_groups_differ_as_documented():
    """Examples of docs/pseudo_labels.md; Pseudo-Q looks up whole names alone."""
    official = Vocabulary.load(groups=OFFICIAL_GROUPS)
    for one, other in itertools.combinations(official.groups.values(), 2):
        assert not set(one) & set(other)
    for group, names in dict(
        people='person man woman child player mother she',
        hat='cap helmet glasses scarf',
        shirt='shirt jacket bag tie dress blanket backpack jeans skirt',
        pants='pants shorts shoes boots belt',
        shoes='shoe sneakers socks',
        things='umpire catcher batter skier family uniform hood sock dog',
    ).items():
        assert {name: official.group_of(name) for name in names.split()} == (
            dict.fromkeys(names.split(), group)
        )
    for name in ('tennis player', 'young man', 'baseball cap', 'dvd player'):
        assert official.group_of(name) == THINGS
    ours = {name: VOCABULARY.group_of(name) for name in ('umpire', 'bag', 'shoes')}
    assert ours == dict(umpire='people', bag='things', shoes='shoes')


def names(dataset):
    return [name.replace('_', ' ').lower() for name in dataset.METAINFO['classes']]


def of_group(dataset, *groups):
    return {name for name in names(dataset) if VOCABULARY.group_of(name) in groups}


def test_of_coco_persons_are_people_and_all_else_are_things():
    assert of_group(CocoDataset, PEOPLE) == {'person'}
    assert not of_group(CocoDataset, *CLOTHES)


@pytest.mark.parametrize(
    ('name', 'group'),
    [
        ('baseball player', 'people'),
        ('little old lady', 'people'),
        ('police officer', 'people'),
        ('baseball cap', 'hat'),
        ('polo shirt', 'shirt'),
        ('tank top', 'shirt'),
        ('sweat pants', 'pants'),
        ('swim trunks', 'pants'),
        ('leather shoes', 'shoes'),
        ('flip flops', 'shoes'),
        ('person statue', 'things'),
        ('baby carriage', 'things'),
        ('shoe rack', 'things'),
        ('bottle cap', 'things'),
        ('table top', 'things'),
    ],
)
def test_a_compound_is_what_its_last_word_is(name, group):
    assert VOCABULARY.group_of(name) == group


@pytest.mark.parametrize(
    ('dataset', 'group', 'wrong'),
    [
        (LVISV1Dataset, 'people', {'cd player', 'record player', 'cream pitcher'}),
        (LVISV1Dataset, 'people', {'fan'}),  # an electric one
        (LVISV1Dataset, 'hat', {'fume hood'}),
    ],
)
def test_of_lvis_no_device_is_a_person_or_worn(dataset, group, wrong):
    assert wrong <= set(names(dataset))
    assert not of_group(dataset, group) & wrong


@pytest.mark.parametrize(
    'name',
    [
        *('wine glasses', 'drinking glasses', 'tree trunks', 'car hood', 'range hood'),
        *('ceiling fan', 'dvd player', 'water pitcher', 'stove top', 'mountain top'),
    ],
)
def test_no_other_thing_is_a_person_or_worn(name):
    assert VOCABULARY.group_of(name) == THINGS


@pytest.mark.parametrize('pair', [('dog', 'puppy'), ('cell phone', 'mobile phone')])
def test_synonyms_hold_both_ways_and_each_word_is_its_own(pair):
    one, other = pair
    assert VOCABULARY.same(one, other) and VOCABULARY.same(other, one)
    assert VOCABULARY.same(one, one) and VOCABULARY.same('gnu', 'gnu')
    assert not VOCABULARY.same(one, 'gnu') and not VOCABULARY.same('gnu', other)


def test_every_listed_synonym_is_one():
    for word, others in VOCABULARY.synonyms.items():
        assert word not in others and len(set(others)) == len(others)
        assert all(VOCABULARY.same(other, word) for other in others)


def test_men_are_no_women_though_both_are_persons():
    for one, other in itertools.combinations(('man', 'woman', 'child'), 2):
        assert VOCABULARY.same('person', one) and VOCABULARY.same('person', other)
        assert not VOCABULARY.same(one, other)


def test_all_words_of_the_data_files_are_lower_case_english():
    lists = [*VOCABULARY.groups.values(), *VOCABULARY.synonyms.values()]
    lists += [VOCABULARY.synonyms, VOCABULARY.attributes]
    for word in itertools.chain(*lists):
        assert word == word.lower().strip() and is_english(word)


@pytest.mark.parametrize(
    ('text', 'english'),
    [
        ('a dog', True),
        ('A Dog!', True),
        ('2 dogs', True),
        ('café table', True),
        ('naïve', True),  # one of five
        ('über', False),  # one of four
        ('', False),
        ('123 !?', False),
        ('собака', False),
        ('狗', False),
        ('a dog 狗', True),
        ('a 狗', False),
    ],
)
def test_english_is_what_has_mostly_ascii_letters(text, english):
    assert is_english(text) is english


def write(folder, **files):
    """Word lists as files, by their arguments."""
    paths = {}
    for name, content in files.items():
        paths[name] = folder / f'{name}.json'
        text = content if isinstance(content, str) else json.dumps(content)
        paths[name].write_text(text, encoding='utf-8')
    return paths


def test_own_lists_replace_ours(tmp_path):
    files = write(
        tmp_path,
        groups=dict(people=['Gnome'], things=['garden gnome'], hat=['Pointed Hat']),
        synonyms=dict(gnome=['Dwarf']),
        words=dict(background=['Nothing'], attributes=['Bearded']),
    )
    found = Vocabulary.load(**files)
    assert [found.group_of(n) for n in ('gnome', 'old gnome', 'garden gnome')] == [
        *('people', 'people', 'things')
    ]
    assert found.group_of('pointed hat') == 'hat'
    assert found.group_of('man') == 'things'
    assert found.same('gnome', 'dwarf')
    assert (found.background, found.attributes) == (['nothing'], ['bearded'])


def test_one_list_can_be_replaced_alone(tmp_path):
    files = write(tmp_path, synonyms=dict(gnome=['dwarf']))
    found = Vocabulary.load(**files)
    assert found.same('gnome', 'dwarf') and not found.same('dog', 'puppy')
    assert found.groups == VOCABULARY.groups
    assert found.attributes == VOCABULARY.attributes


@pytest.mark.parametrize('name', ['groups', 'synonyms', 'words'])
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"a": ["b"]', 'not valid JSON'),
        ('', 'not valid JSON'),
        (['dog'], 'expected a JSON object'),
        (dict(a='dog'), 'expected a JSON object'),
        (dict(a=[1]), 'expected a JSON object'),
        (dict(a=[['dog']]), 'expected a JSON object'),
    ],
)
def test_damaged_lists_are_refused_with_their_file(tmp_path, name, content, message):
    files = write(tmp_path, **{name: content})
    with pytest.raises(ValueError, match=message) as error:
        Vocabulary.load(**files)
    assert f'{name}.json' in str(error.value)


def test_an_unknown_group_is_refused(tmp_path):
    files = write(tmp_path, groups=dict(gloves=['mitten']))
    with pytest.raises(ValueError, match=r"'gloves'.*expected.*'hat'"):
        Vocabulary.load(**files)


@pytest.mark.parametrize('missing', ['background', 'attributes'])
def test_a_missing_list_is_refused(tmp_path, missing):
    words = dict(background=['nothing'], attributes=['red'])
    del words[missing]
    with pytest.raises(ValueError, match=missing):
        Vocabulary.load(**write(tmp_path, words=words))


def test_the_words_with_synonyms_are_made_lower_case_too(tmp_path):
    files = write(tmp_path, synonyms=dict(Gnome=['Dwarf']))
    assert Vocabulary.load(**files).same('gnome', 'dwarf')
