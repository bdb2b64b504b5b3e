"""Pickles that small files can hold and no program should be stopped by."""


def laughs(times, kind='tuple'):
    """Something that holds itself twice, ``times`` times over: 2 ** times values."""
    twice = {
        'tuple': b'2\x86',
        'list': b'q\x000](h\x00h\x00e',
        'dict': b'q\x000}(K\x01h\x00K\x02h\x00u',
    }
    return b'\x80\x02K\x01' + twice[kind] * times + b'.'


def deep(times, kind='tuple'):
    """A container in a container, ``times`` times over."""
    if kind == 'tuple':
        return b'\x80\x02N' + b'\x85' * times + b'.'
    return b']' * times + b'a' * (times - 1) + b'.'


def self_containing():
    """A list in itself, a dict in itself, a tuple in its list."""
    return b']q\x00h\x00a.', b'}q\x00K\x01h\x00s.', b']q\x00h\x00\x85a.'
