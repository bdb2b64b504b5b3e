"""File names made of texts in data: sources, measurers, images."""

import hashlib
import re

__all__ = ['file_name', 'leads_out']

# Names that every file system takes, in letters of any language.
_PLAIN = re.compile(r'\w[\w .+=,@-]*')
_MOST_BYTES = 120  # file systems take 255; two names and a suffix share one


def file_name(text: str) -> str:
    """A part of a path for a text of the data, the same for the same text.

    Args:
        text (str): Any text, such as a label's ``source``.

    Returns:
        str: The text itself, if it is a plain name. Otherwise what is plain of it and
        a hash of all, so that two texts never share a file. It has no separator, does
        not begin with a dot, and is at most 120 bytes long.
    """
    encoded = text.encode('utf-8', 'surrogatepass')
    # "__" stands between the parts of a name.
    plain = _PLAIN.fullmatch(text) and '__' not in text and text[-1] not in '_. '
    if plain and len(encoded) <= _MOST_BYTES:
        return text
    kept = re.sub(r'[^A-Za-z0-9.-]+', '_', text).strip('._-')[:60]
    return f'{kept or "name"}-{hashlib.sha256(encoded).hexdigest()[:16]}'


def leads_out(name: str) -> bool:
    """Whether a relative name leads out of the folder that it should start from.

    Args:
        name (str): Of a file, with the separators of any system.

    Returns:
        bool: True for absolute names, names with a drive or ``..``, and those that no
        file system takes.
    """
    parts = re.split(r'[/\\]', name)
    # Checked on any system: a label file may come from Windows.
    drive = re.match(r'[A-Za-z]:[/\\]', name) is not None
    return drive or parts[0] == '' or '..' in parts or '\0' in name
