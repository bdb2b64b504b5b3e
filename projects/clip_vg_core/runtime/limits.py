"""How much the visitors of a server may ask for."""

from dataclasses import dataclass

__all__ = ['ByteLimits', 'Limits']


@dataclass(frozen=True)
class Limits:
    """The most that a visitor may give.

    Args:
        pixels (int): Of an image, width times height. Defaults to 40,000,000.
        expressions (int): For an image. Defaults to 20.
        characters (int): Of an expression. Defaults to 200.
    """

    pixels: int = 40_000_000
    expressions: int = 20
    characters: int = 200


@dataclass(frozen=True)
class ByteLimits:
    """The most bytes that may come in.

    Args:
        upload (int): Of a file.
        body (int): Of any other request, which brings texts.
        stored (int): Of all files together, drawn images included. Defaults to 1 GB.
    """

    upload: int
    body: int
    stored: int = 1_000_000_000
