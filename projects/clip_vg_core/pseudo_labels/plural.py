"""English plurals of the names of classes."""

__all__ = ['plural_of']

# Of names in COCO, LVIS, Objects365, Visual Genome and Open Images.
_IRREGULAR = {
    'person': 'people',
    'man': 'men',
    'woman': 'women',
    'child': 'children',
    'foot': 'feet',
    'tooth': 'teeth',
    'goose': 'geese',
    'mouse': 'mice',
    'ox': 'oxen',
    'knife': 'knives',
    'leaf': 'leaves',
    'shelf': 'shelves',
    'loaf': 'loaves',
    'calf': 'calves',
    'wolf': 'wolves',
    'scarf': 'scarves',
    'half': 'halves',
    'potato': 'potatoes',
    'tomato': 'tomatoes',
    'bus': 'buses',
}
_UNCHANGED = {'sheep', 'deer', 'fish', 'bison', 'moose', 'salmon', 'shrimp', 'aircraft'}
# Names that are plurals already, and what is not counted.
_PLURAL_ENDS = ('pants', 'shorts', 'jeans', 'glasses', 'scissors', 'skis', 'binoculars')
_MASS = ('broccoli', 'grass', 'sand', 'water', 'snow', 'rice', 'bread', 'luggage')


def plural_of(name: str) -> str:
    """The plural of a name, of its last word.

    Args:
        name (str): Lower case, such as 'wine glass'.

    Returns:
        str: E.g. 'wine glasses'; names that are plurals, and those of what is not
        counted, stay as they are.
    """
    head, space, word = name.rpartition(' ')
    return head + space + _plural_of_word(word)


def _plural_of_word(word: str) -> str:
    if word in _UNCHANGED or word in _MASS or word.endswith(_PLURAL_ENDS):
        return word
    for singular, plural in _IRREGULAR.items():
        # "policeman", "bookshelf"; but "human" and "ottoman" are no men.
        if word == singular or (
            len(singular) > 2
            and word.endswith(singular)
            and word not in ('human', 'ottoman', 'talisman', 'shaman')
        ):
            return word.removesuffix(singular) + plural
    if word.endswith(('s', 'x', 'z', 'ch', 'sh')):
        return f'{word}es'
    if word.endswith('y') and word[-2:-1] not in 'aeiou':
        return f'{word[:-1]}ies'
    return f'{word}s'
