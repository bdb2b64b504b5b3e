"""A file of labels that several processes or machines make, a shard each."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.readers.common import read_json
from ..utils.folder_lock import lock_folder
from ..utils.shards import Shards
from .generation import (
    OUTPUTS,
    Generation,
    Models,
    WriteReport,
    generate,
    merge_shards,
    refuse_to_replace,
)
from .statistics import manifest_path

__all__ = ['find_shard', 'generate_sharded']


def generate_sharded(
    job: Generation,
    models: Models | None = None,
    write_report: WriteReport | None = None,
) -> dict[str, Any] | None:
    """Make labels, or a shard of them in ``<out>.shards``.

    Whoever finishes the last shard puts all together, to the bytes of one process.
    Without a shard of its own, a job whose shards have begun makes those that are
    missing.

    Args:
        job (Generation): What to do; ``out`` is that of all shards.
        models (Models, optional): As of :func:`generate`.
        write_report (Callable, optional): As of :func:`generate`.

    Returns:
        dict or None: The manifest; None as long as shards are missing.

    Raises:
        FileExistsError: The output is there, and may not be replaced.
        RuntimeError: Another process makes this shard.
        ValueError: An input is damaged, or there are shards of other inputs or options.
    """
    shards = Shards(job.out)
    if job.shard[1] == 1 and not shards.has_begun():
        return generate(job, models, write_report)
    job.check()
    settings = replace(job, shard=(1, 1)).settings()
    bound = dict(settings, shard_batch=job.shard_batch)
    if job.shard[1] > 1:
        if not shards.has_begun() and not job.overwrite:
            made = _made(job.out, settings)
            if made is not None:
                return made
            refuse_to_replace(job.out)
        shards.begin(bound, job.shard[1], job.overwrite)
        numbers = [job.shard[0]]
    elif shards.resume(bound, job.overwrite) and not job.overwrite:
        numbers = shards.missing()
    else:
        with shards.lock():
            shards.remove()
        return generate(job, models, write_report)
    for number in numbers:
        _make_part(replace(job, shard=(number, shards.total())), shards, models)
    return _put_together(job, shards, settings, write_report)


def _make_part(job: Generation, shards: Shards, models: Models | None) -> None:
    number = job.shard[0]
    if shards.is_finished(number):
        return
    folder = shards.part(number)
    with lock_folder(folder, every_process=True):
        part = folder / job.out.name
        for end in OUTPUTS:  # of a process that was killed while it wrote them
            Path(f'{part}{end}').unlink(missing_ok=True)
        generate(replace(job, out=part), models)
        shards.finish(number)


def _put_together(
    job: Generation,
    shards: Shards,
    settings: Mapping[str, Any],
    write_report: WriteReport | None,
) -> dict[str, Any] | None:
    with shards.lock():
        if shards.settings() is None:  # another process was faster
            return _made(job.out, settings)
        if not shards.are_finished():
            return None
        numbers = range(1, shards.total() + 1)
        parts = [shards.part(number) / job.out.name for number in numbers]
        manifest = merge_shards(parts, job.out, job.inputs.images, True, write_report)
        shards.remove()
    return manifest


def find_shard(labels: Path) -> Path:
    """The labels of a shard that was made as a part of some output.

    Args:
        labels (Path): The labels; or the output, in whose folder of shards is just one,
            as it is where each machine gave an output of its own.

    Returns:
        Path: The labels; the argument itself where it is a file.
    """
    if labels.exists():
        return labels
    found = [part / labels.name for part in Shards(labels).parts()]
    return found[0] if len(found) == 1 else labels


def _made(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of labels that are there already, if these settings made them."""
    if not out.is_file() or not manifest_path(out).is_file():
        return None
    manifest = read_json(manifest_path(out))
    same = manifest.get('settings') == json.loads(json.dumps(settings))
    return manifest if same else None
