"""The runtime's token ids are those of open_clip, without it."""

import random
import sys

import numpy as np
import open_clip
import pytest
from open_clip.tokenizer import get_clean_fn

from projects.clip_vg_core.runtime import tokenizer
from projects.clip_vg_core.runtime.tokenizer import clean_text, load_tokenizer

# Entities, wrongly decoded text, cases of Unicode whose lower case or class is odd.
PIECES = [
    *('left', 'RED', "man's", "IT'S", "'LL", "'ſ", '_', 'a_b', '!!', ' ', '  ', '\t'),
    *('\n', '\r\n', '\x00', '\x1b[31m', '\x85', '&amp;', '&AMP;', '&NTILDE;', '&'),
    *('&lt;b&gt;', '&amp;amp;lt;', '&#x41;', '&#0;', '<', 'schÃ¶n', 'â€œso”', '…'),
    *('ﬁ', 'ſ', '\u212a', 'İ', '²', '½', 'Ⅷ', 'e\u0301', '１２', '\ufeff', '\u200d'),
    *(
        '😀',
        '👩\u200d👩',
        '汉字',
        'ㄱ',
        'الرجل',
        'don’t',
        '<end_of_text>',
        '<START_OF_TEXT>',
    ),
]


def odd_texts(count):
    rng = random.Random(0)
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    for number in range(count):
        length = rng.randrange(14)
        if number % 3 == 0:
            yield ''.join(rng.choices(characters, k=length))
        elif number % 3 == 1:
            yield rng.choice(['', ' ']).join(rng.choices(PIECES, k=length))
        else:
            yield ''.join(chr(rng.randrange(32, 127)) for _ in range(9 * length))


@pytest.fixture(scope='module')
def texts():
    return [*PIECES, '', *odd_texts(3000)]


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    tokenizer.save_merges(folder)
    return folder


def load(folder, context_length=77, **options):
    return load_tokenizer(dict(options, context_length=context_length), folder)


@pytest.mark.parametrize('context_length', [77, 6])
def test_ids_are_those_of_open_clip(exported, texts, context_length):
    expected = open_clip.SimpleTokenizer(context_length=context_length)(texts).numpy()
    ids = load(exported, context_length).token_ids(texts)
    assert len(np.unique(ids)) > 1000
    assert not expected[:, ids.shape[1] :].any()
    np.testing.assert_array_equal(ids, expected[:, : ids.shape[1]])


@pytest.mark.parametrize('how', ['lower', 'whitespace', 'canonicalize'])
def test_texts_are_cleaned_as_by_open_clip(texts, how):
    expected = list(map(get_clean_fn(how), texts))
    assert [clean_text(text, how) for text in texts] == expected
    assert expected != texts


def test_ascii_needs_no_ftfy_and_other_texts_say_so(exported, monkeypatch):
    plain = ''.join(map(chr, range(32, 127))).replace('&', '')
    tokenize = load(exported)
    expected = tokenize.token_ids([plain]), tokenize.token_ids(['schön'])
    monkeypatch.setitem(sys.modules, 'ftfy', None)
    np.testing.assert_array_equal(tokenize.token_ids([plain]), expected[0])
    for text in ('schön', 'a &amp; b', 'a\x00'):
        with pytest.raises(ImportError, match='ftfy is needed'):
            tokenize.token_ids([text])


def test_templates_and_prompts_are_as_of_the_model(exported):
    from projects.clip_vg.models.expression_tokenizer import ExpressionTokenizer

    texts = ['dog', 'the big red bus!~', ' '.join(['cat'] * 30)]
    for options in (dict(template='find {}!~'), dict(prompt_length=3)):
        expected = ExpressionTokenizer(12, **options)(texts).numpy()
        ids = load(exported, 12, **options).token_ids(texts)
        np.testing.assert_array_equal(ids, expected)
        assert expected.shape[1] == 12


def test_an_older_folder_takes_open_clips_pairs(tmp_path, exported, monkeypatch):
    expected = load(exported).token_ids(['left man'])
    np.testing.assert_array_equal(load(tmp_path).token_ids(['left man']), expected)
    monkeypatch.setattr(tokenizer, 'find_spec', lambda _: None)
    with pytest.raises(FileNotFoundError, match=r'merges\.txt.*[Ee]xport again'):
        load(tmp_path)


@pytest.mark.parametrize(
    'change', [lambda d: d[:-9], lambda d: d.replace(b'i n', b'n i')]
)
def test_changed_pairs_are_refused(tmp_path, exported, change):
    data = change((exported / 'merges.txt').read_bytes())
    (tmp_path / 'merges.txt').write_bytes(data)
    with pytest.raises(ValueError, match=r'merges\.txt'):
        load(tmp_path)


def test_words_without_end_take_bounded_memory(exported):
    tokenize = load(exported)
    for number in range(0, 40_000, 1000):
        tokenize.token_ids([f'w{n}' for n in range(number, number + 1000)])
        tokenize.token_ids(['ab' * 50 + chr(0x4E00 + number)])
    assert tokenize._word_ids.cache_info().currsize <= 1 << 14
