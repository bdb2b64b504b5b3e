"""How much the visitors of a server may ask for, and which requests it refuses."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ['LOOPBACK', 'ByteLimits', 'Limits', 'refusal']

LOOPBACK = frozenset({'localhost', '127.0.0.1', '::1'})
# A multipart form's own bytes, beside the file in it.
_FORM = 10_000


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


def refusal(
    method: str,
    is_upload: bool,
    headers: Mapping[str, str],
    hosts: Collection[str] | None,
    byte_limits: ByteLimits,
) -> tuple[int, str] | None:
    """Why a request is refused.

    Args:
        method (str): Of HTTP.
        is_upload (bool): Whether it brings a file.
        headers (Mapping[str, str]): Names in lower case.
        hosts (Collection[str], optional): Names that the server may be called by; None:
            any. Of a server on this machine alone, another name is a page elsewhere
            that has had its own name resolved to this machine.
        byte_limits (ByteLimits): The most bytes that may come in.

    Returns:
        tuple[int, str], optional: Status and reason; None: it is taken.
    """
    # DNS rebinding: a page elsewhere whose name was resolved to this machine.
    host = headers.get('host', '')
    if hosts is not None and urlsplit(f'//{host}').hostname not in hosts:
        names = ', '.join(sorted(hosts))
        return 421, f'This server is for its own machine: call it by one of {names}.'
    # Browsers name the page whose script sends a request.
    origin = headers.get('origin')
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, 'Requests of other pages are refused.'
    site = headers.get('sec-fetch-site', 'same-origin')
    if site == 'cross-site' and headers.get('sec-fetch-mode') != 'navigate':
        return 403, 'Requests of other pages are refused.'
    # A body of unknown length could not be refused before it is read.
    if 'transfer-encoding' in headers:
        return 411, 'Say how long the body is (Content-Length).'
    length = headers.get('content-length', '0')
    most = (
        byte_limits.upload + _FORM
        if is_upload and method == 'POST'
        else byte_limits.body
    )
    # Python refuses to read numbers of thousands of digits.
    if not length.isdecimal() or len(length) > 15 or int(length) > most:
        return 413, f'At most {most:,} bytes are read.'
    return None
