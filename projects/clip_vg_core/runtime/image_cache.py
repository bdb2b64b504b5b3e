"""What was computed of images, kept by their content within a number of bytes."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ['ImageCache']

T = TypeVar('T')


class ImageCache(Generic[T]):
    """The values that were used last; several threads may use it at once.

    Args:
        most_bytes (int): Of all values together; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = self.hits = self.misses = 0
        self._values: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> T | None:
        """The value of a key, which then was used last; None if there is none."""
        with self._lock:
            if key not in self._values:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: bytes, value: T, num_bytes: int) -> None:
        """Keep a value; those that were used longest ago go, if it needs their bytes.

        Args:
            key (bytes): A hash of the image's content.
            value (T): What was computed of it.
            num_bytes (int): What it takes; more than ``most_bytes`` is not kept.
        """
        with self._lock:
            if key in self._values or num_bytes > self.most_bytes:
                return
            self._values[key] = value, num_bytes
            self.held_bytes += num_bytes
            while self.held_bytes > self.most_bytes:
                _, (_, freed) = self._values.popitem(last=False)
                self.held_bytes -= freed
