"""What a file of labels is like: counts, length, words, and its manifest."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.readers.common import read_json
from ..utils.atomic import replacing

__all__ = [
    'GENERATOR_VERSION',
    'describe_labels',
    'describe_manifest',
    'manifest_path',
    'merge_manifests',
    'summary',
    'write_manifest',
]

# Raised whenever the same inputs and options give other labels.
# 2: no template label says middle or center along y. 3: "in the back", not "in the
# behind"; geometry says inside of containers alone, and on of no person.
GENERATOR_VERSION = 3
_COMMONEST = 50
# Score of a detection, below which its label is often wrong: the --min-score of
# detectors that are run here. Labels of other kinds have other scores.
_SURE = 0.3
_OF_DETECTIONS = ('template', 'caption')
# What helps where a rule leaves everything out.
_REMEDIES = {
    'below --min-score': 'lower --min-score',
    'too small': 'lower --min-area',
    'overlapping': 'raise --max-iou',
    'not sure': 'lower --min-object-score (geometry), --min-score (relation)',
    'background': 'give other names for nothing by --words',
    'unknown image': 'give the --instances file of these images',
    'text of several objects': 'say --no-unique',
    'text of several subjects': 'say --no-unique',
    'subject not detected': 'use a detector of more classes, or add --synonyms',
    'ambiguous caption': 'say --keep-ambiguous',
    'caption not English': 'give English captions',
    'caption without a subject': 'give captions that name what they show',
    'boxes do not tell how they lie': 'use a detector of more classes',
    'below --min-probability': 'lower --min-probability',
    'text without a detection': 'lower --min-score or --min-area',
    'images without detections': 'lower --min-score, or use another detector',
    'images without captions': 'check that --captions has the ids of these images',
    'images without triplets': 'check that --triplets has the ids of these images',
    'images without texts': 'check that --texts has the names of these images',
}


def manifest_path(labels: str | Path) -> Path:
    """Of the manifest beside a file of labels."""
    return Path(f'{labels}.manifest.json')


def write_manifest(manifest: Mapping[str, Any], labels: Path) -> None:
    """Write the manifest of a file of labels beside it."""
    with replacing(manifest_path(labels)) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')


def _lines(path: Path) -> Iterator[dict]:
    with path.open(encoding='utf-8') as file:
        yield from map(json.loads, file)


def describe_labels(path: Path, counts: Mapping[str, int]) -> dict[str, Any]:
    """Read labels once and say what they are like.

    Args:
        path (Path): ODVG JSON Lines of a generator.
        counts (Mapping[str, int]): What was counted while they were made.

    Returns:
        dict: ``labels``, ``images``, shares, means, ``rules``, ``words``; numbers are
        rounded, so that the same labels give the same bytes.
    """
    rules: Counter = Counter()
    words: Counter = Counter()
    lengths: Counter = Counter()
    per_image: Counter = Counter()
    entities = score = 0.0
    unsure = 0
    digest = hashlib.sha256()
    image, in_image = None, 0
    for line in _lines(path):
        digest.update(line['sample_id'].encode() + b'\n')
        name = line['sample_id'].rpartition('_')[0]
        if name != image:
            per_image[in_image] += image is not None
            image, in_image = name, 0
        in_image += 1
        said = line['grounding']['caption'].split()
        words.update(said)
        lengths[len(said)] += 1
        rules[line['rule']] += 1
        entities += line['entities']
        score += line['score']
        unsure += line['score'] < _SURE
    per_image[in_image] += image is not None
    total = sum(rules.values())
    per_image[0] = counts.get('images', 0) - sum(n for k, n in per_image.items() if k)
    most = dict(
        sorted(words.items(), key=lambda item: (-item[1], item[0]))[:_COMMONEST]
    )
    shares = {
        kind.removeprefix('label: '): _mean(number, total)
        for kind, number in sorted(counts.items())
        if kind.startswith('label: ')
    }
    return dict(
        labels=total,
        images=counts.get('images', 0),
        images_with_labels=counts.get('images with labels', 0),
        labels_per_image=_histogram(per_image),
        mean_labels_per_image=_mean(total, counts.get('images', 0)),
        mean_words=_mean(sum(k * n for k, n in lengths.items()), total),
        words_per_label=_histogram(lengths),
        mean_entities=_mean(entities, total),
        mean_score=_mean(score, total),
        unsure_labels=unsure,
        vocabulary=len(words),
        commonest_words=most,
        shares=shares,
        rules=dict(sorted(rules.items(), key=lambda item: (-item[1], item[0]))),
        sample_ids_sha256=digest.hexdigest(),
        bytes=path.stat().st_size,
    )


def _mean(value: float, count: int) -> float:
    return round(value / count, 4) if count else 0.0


def _histogram(counted: Mapping[int, int]) -> dict[str, int]:
    return {str(key): number for key, number in sorted(counted.items()) if number}


def describe_manifest(labels: Path, sample_ids_sha256: str) -> dict[str, Any] | None:
    """What the manifest beside a file of labels says of them.

    Args:
        labels (Path): The file of labels.
        sample_ids_sha256 (str): Of the names of its labels, as they are in it.

    Returns:
        dict or None: ``generator``, ``generator_version``, ``source``, ``labels``,
        ``rules`` and ``left_out`` with their numbers, and ``same``, whether it speaks
        of these labels; None where there is no manifest.

    Raises:
        ValueError: The manifest is damaged.
    """
    path = manifest_path(labels)
    if not path.is_file():
        return None
    manifest = read_json(path)
    try:
        settings, made = manifest['settings'], manifest['statistics']
        return dict(
            generator=manifest['generator'],
            generator_version=settings.get('generator_version'),
            source=settings['source'],
            labels=made['labels'],
            rules=dict(made['rules']),
            left_out={
                key.removeprefix('left out: '): number
                for key, number in manifest['counts'].items()
                if key.startswith('left out: ') and number
            },
            same=made['sample_ids_sha256'] == sample_ids_sha256,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f'{path} is no manifest of pseudo-labels ({type(error).__name__}: '
            f'{error}): make the labels again, or remove it.'
        ) from error


def summary(manifest: Mapping[str, Any]) -> str:
    """A manifest in a few lines."""
    made, counts = manifest['statistics'], manifest['counts']
    lines = [
        f'{made["labels"]:,} labels for {made["images_with_labels"]:,} of '
        f'{made["images"]:,} images; {made["mean_words"]:.2f} words, '
        f'{made["mean_entities"]:.2f} entities, vocabulary {made["vocabulary"]:,}'
    ]
    for title, part in (('rules', made['rules']), ('shares', made['shares'])):
        if part:
            lines.append(f'{title}: ' + ', '.join(f'{k} {v}' for k, v in part.items()))
    left_out = {
        key.removeprefix('left out: '): number
        for key, number in counts.items()
        if key.startswith('left out: ') and number
    }
    left_out.update({k: n for k, n in counts.items() if k.startswith('images without')})
    lines.append('left out: ' + ', '.join(f'{k} {v:,}' for k, v in left_out.items()))
    if not made['labels']:
        lines.append(_advice(left_out, made['images'], counts))
    unsure = made.get('unsure_labels', 0)
    if unsure and manifest['settings']['kind'] in _OF_DETECTIONS:
        lines.append(
            f'{unsure:,} labels are of detections with a score below {_SURE}, which '
            f'are often wrong: --min-score {_SURE} leaves them out'
        )
    return '\n'.join(lines)


def _advice(left_out: Mapping[str, int], images: int, counts: Mapping) -> str:
    """What to change where no label was made, by the rules that left out most."""
    reasons = sorted(
        ((n, key) for key, n in left_out.items() if n and key in _REMEDIES),
        reverse=True,
    )
    what = '; '.join(f'{key} {n:,}: {_REMEDIES[key]}' for n, key in reasons)
    if not what:
        what = (
            f'{counts.get("detections", 0):,} detections on {images:,} images fit no '
            'rule: geometry needs two objects of an image, template one person or thing'
        )
    return f'No label was made. {what}.'


def merge_manifests(
    paths: Sequence[Path],
) -> tuple[list[Path], dict[str, Any], Counter]:
    """Put the manifests of shards together.

    Args:
        paths (Sequence[Path]): The labels of all shards, in any order.

    Returns:
        tuple: The labels in order, the settings that all share, and their counts.

    Raises:
        ValueError: Shards are missing, doubled or of different runs.
    """
    found = []
    for path in paths:
        manifest = _whole(path)
        shard = manifest['settings'].pop('shard', None)
        if shard is None:
            raise ValueError(
                f'{path} is no shard; it was made whole. Merge what --shard made.'
            )
        found.append((shard, manifest, path))
    found.sort(key=lambda entry: entry[0])
    total = found[0][0][1]
    if [shard for shard, _, _ in found] != [[i, total] for i in range(1, total + 1)]:
        raise ValueError(
            f'Expected the shards 1 to {total} of {total}, found '
            + ', '.join(f'{i}/{n} ({path})' for (i, n), _, path in found)
            + '. Make the missing ones by --shard, and name each once.'
        )
    counts: Counter = Counter()
    for _, manifest, path in found:
        if manifest['settings'] != found[0][1]['settings']:
            raise ValueError(
                f'{path} was made with other settings than {found[0][2]}: compare '
                'their manifests, and make one of them again.'
            )
        counts.update(manifest['counts'])
    settings = found[0][1]['settings']
    settings.pop('shard_batch', None)  # which shards of version 0.1 do not have
    return [path for _, _, path in found], settings, counts


def _whole(path: Path) -> dict[str, Any]:
    """The manifest of a shard, if its labels are those that it speaks of."""
    for file in (path, manifest_path(path)):
        if not file.is_file():
            raise FileNotFoundError(
                f'{file}: no such file. Merging needs the labels of each shard and the '
                'manifest beside them.'
            )
    manifest = read_json(manifest_path(path))
    try:
        told = manifest['statistics']
        found = describe_labels(path, manifest['counts'])
        same = all(found[key] == told[key] for key in ('labels', 'sample_ids_sha256'))
        manifest['settings'].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} or its manifest is damaged ({type(error).__name__}: {error}): '
            'copy or make the shard again.'
        ) from error
    if not same or path.stat().st_size != told['bytes']:
        raise ValueError(
            f'{path} has {found["labels"]} labels, its manifest speaks of other ones '
            f'({told["labels"]}): copy or make the shard again.'
        )
    return manifest
