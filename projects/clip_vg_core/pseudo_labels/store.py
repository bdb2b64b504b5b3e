"""All inputs of a run in one file, from which a stretch of images can be read.

Result files list detections in any order and can be far larger than the memory; here
they are sorted by image, by SQLite.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .detection import Detection, Scene, Triplet

__all__ = ['SceneStore', 'UnknownImageError']

_COLUMNS = dict(
    image='rank, id, file_name, width, height',
    detection='rank, kind, name, x1, y1, x2, y2, score, attribute, attribute_score',
    caption='rank, text',
    triplet='rank, predicate, score, subject, object',
    counted='what, number',
)
DETECTED, DESCRIBED = 0, 1  # kinds: of the detector, of the attribute detector


class UnknownImageError(ValueError):
    """An entry names an image that is not among the images."""


def _sort_key(image_id: int | str) -> str:
    """Numbers by their value, then names."""
    return f'0{image_id:020d}' if isinstance(image_id, int) else f'1{image_id}'


class SceneStore:
    """Images with their detections, captions and triplets, sorted by image id.

    Args:
        path (str or Path): The SQLite file.
        write (bool): Whether to begin it anew. Defaults to False.
    """

    def __init__(self, path: str | Path, write: bool = False) -> None:
        self.path = Path(path)
        if write:
            self.path.unlink(missing_ok=True)
        mode = 'rwc' if write else 'ro'
        self._base = sqlite3.connect(
            f'{self.path.absolute().as_uri()}?mode={mode}', uri=True
        )
        self._range = range(0, 0)
        if write:
            # A run that is killed here begins the file anew: no journal is needed.
            self._base.execute('PRAGMA journal_mode = OFF')
            self._base.execute('PRAGMA synchronous = OFF')
            for table, columns in _COLUMNS.items():
                self._base.execute(f'CREATE TABLE {table} ({columns})')
        self.rank_of = lru_cache(maxsize=1024)(self._find)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _insert(self, table: str, rows: Iterable[tuple]) -> None:
        marks = ', '.join('?' * len(_COLUMNS[table].split(',')))
        self._base.executemany(f'INSERT INTO {table} VALUES ({marks})', rows)

    def add_images(
        self, images: Iterable[tuple[int | str, str, int | None, int | None]]
    ) -> int:
        """Give the images, before anything else.

        Args:
            images (Iterable[tuple]): id, file name, width and height (None: unknown).

        Returns:
            int: How many there are.

        Raises:
            ValueError: An id or a file name comes twice.
        """
        self._base.execute(
            'CREATE TABLE listed (key, id, said, file_name, width, height)'
        )
        self._base.executemany(
            'INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?)',
            ((_sort_key(i), json.dumps(i), str(i), *rest) for i, *rest in images),
        )
        # 1 and "1" would give labels of one name.
        for column, what in (('said', 'id'), ('file_name', 'file name')):
            twice = self._base.execute(
                f'SELECT {column} FROM listed GROUP BY {column} HAVING COUNT(*) > 1 '
                'LIMIT 1'
            ).fetchone()
            if twice:
                raise ValueError(
                    f'the image {what} {twice[0]!r} is listed twice; it must be unique.'
                )
        self._base.execute(
            'INSERT INTO image SELECT ROW_NUMBER() OVER (ORDER BY key) - 1, id, '
            'file_name, width, height FROM listed'
        )
        self._base.execute('DROP TABLE listed')
        self._base.execute('CREATE UNIQUE INDEX image_id ON image (id)')
        self._base.execute('CREATE UNIQUE INDEX image_rank ON image (rank)')
        self._range = range(len(self))
        return len(self)

    def __len__(self) -> int:
        return self._base.execute('SELECT COUNT(*) FROM image').fetchone()[0]

    def keep(self, ranks: range) -> None:
        """Only what belongs to these images will be stored."""
        self._range = ranks

    def is_kept(self, rank: int) -> bool:
        """Whether what belongs to an image is stored."""
        return rank in self._range

    def _find(self, image_id: int | str) -> int:
        found = self._base.execute(
            'SELECT rank FROM image WHERE id = ?', (json.dumps(image_id),)
        ).fetchone()
        if found is None:
            raise UnknownImageError(
                f'image {image_id!r} is not among the {len(self):,} images'
            )
        return found[0]

    def _mine(self, entries: Iterable[tuple]) -> Iterator[tuple]:
        for image_id, *entry in entries:
            rank = self.rank_of(image_id)
            if self.is_kept(rank):
                yield rank, *entry

    def add_detections(
        self, entries: Iterable[tuple[int | str, Detection]], described: bool = False
    ) -> None:
        """Give detections in any order.

        Args:
            entries (Iterable[tuple]): Image id and detection.
            described (bool): Whether they are there for their attributes only.
                Defaults to False.

        Raises:
            UnknownImageError: An image id is unknown.
        """
        self._insert(
            'detection',
            (
                (
                    *(rank, int(described), item.name, *item.box, item.score),
                    *(item.attribute, item.attribute_score),
                )
                for rank, item in self._mine(entries)
            ),
        )

    def add_captions(self, entries: Iterable[tuple[int | str, str]]) -> None:
        """Give captions, as image id and text."""
        self._insert('caption', self._mine(entries))

    def add_triplets(self, entries: Iterable[tuple[int | str, Triplet]]) -> None:
        """Give triplets, as image id and triplet."""

        def flat(item: Detection) -> str:
            return json.dumps([item.name, item.box, item.score])

        self._insert(
            'triplet',
            (
                (rank, t.predicate, t.score, flat(t.subject), flat(t.object))
                for rank, t in self._mine(entries)
            ),
        )

    def count(self, counts: Mapping[str, int]) -> None:
        """Note what was left out while reading."""
        self._insert('counted', counts.items())

    def counted(self) -> dict[str, int]:
        """What was noted."""
        return dict(self._base.execute('SELECT what, number FROM counted'))

    def finish(self) -> None:
        """Make what was given quick to find."""
        for table in ('detection', 'caption', 'triplet'):
            self._base.execute(f'CREATE INDEX by_{table} ON {table} (rank)')
        self._base.commit()

    def images(
        self, ranks: range
    ) -> Iterator[tuple[int, int | str, str, int | None, int | None]]:
        """Rank, id, file name, width and height of some images."""
        for rank, image_id, *rest in self._of('image', ranks):
            yield rank, json.loads(image_id), *rest

    def set_sizes(self, sizes: Iterable[tuple[int, int, int]]) -> None:
        """Width and height of images that had none, by rank."""
        self._base.executemany(
            'UPDATE image SET width = ?2, height = ?3 WHERE rank = ?1', sizes
        )

    def scenes(self, ranks: range) -> Iterator[tuple[Scene, tuple[Detection, ...]]]:
        """Read some images.

        Args:
            ranks (range): Which, in the order of their ids.

        Yields:
            tuple[Scene, tuple[Detection, ...]]: The image; and the detections of the
            attribute detector.
        """
        detections: dict[tuple[int, int], list[Detection]] = {}
        for rank, kind, name, *box, score, attribute, sure in self._of(
            'detection', ranks
        ):
            item = Detection(name, tuple(box), score, attribute, sure)
            detections.setdefault((rank, kind), []).append(item)
        captions: dict[int, list[str]] = {}
        for rank, text in self._of('caption', ranks):
            captions.setdefault(rank, []).append(text)
        triplets: dict[int, list[Triplet]] = {}
        for rank, predicate, score, *ends in self._of('triplet', ranks):
            subject, other = (
                Detection(name, tuple(box), sure)
                for name, box, sure in map(json.loads, ends)
            )
            triplet = Triplet(subject, predicate, other, score)
            triplets.setdefault(rank, []).append(triplet)
        for rank, image_id, file_name, width, height in self._of('image', ranks):
            scene = Scene(
                json.loads(image_id),
                file_name,
                width,
                height,
                tuple(detections.get((rank, DETECTED), ())),
                tuple(captions.get(rank, ())),
                tuple(triplets.get(rank, ())),
            )
            yield scene, tuple(detections.get((rank, DESCRIBED), ()))

    def _of(self, table: str, ranks: range) -> Iterator[tuple[Any, ...]]:
        yield from self._base.execute(
            f'SELECT {_COLUMNS[table]} FROM {table} '
            'WHERE rank >= ? AND rank < ? ORDER BY rank, rowid',
            (ranks.start, ranks.stop),
        )
