"""What metrics of labels share: results of all processes, joined by label."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from projects.clip_vg_core.data.label_table import box_faults
from projects.clip_vg_core.metrics.results_file import write_results

__all__ = [
    'JoinedMetric',
    'expressions_and_ids',
    'has_scores',
    'invalid_boxes',
    'owners_of',
]


class JoinedMetric(BaseMetric):
    """Base of metrics with a result for each label, exact in any number of processes.

    A result is a dict with ``sample_id``, and ``invalid`` for a label that is a miss
    whatever is predicted. Subclasses have ``process``, ``compute_metrics`` of the
    results in the order of their ids, ``measures`` with their names, and ``rows_of``
    for the file.

    Args:
        out_file (str, optional): JSON Lines to write, a row for each label. Defaults
            to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to 'grounding'.
    """

    default_prefix = 'grounding'

    def __init__(
        self,
        out_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.out_file = out_file

    def evaluate(self, size: int) -> dict[str, float]:
        """Join the results of all processes, check them, and summarise.

        Modifications of :meth:`BaseMetric.evaluate`: its gathering takes turns
        between the ranks and cuts at ``size``, which loses or doubles samples
        where ranks have unequally many.

        Args:
            size (int): Labels of the data set.

        Returns:
            dict[str, float]: On every rank.

        Raises:
            RuntimeError: A label was not scored, or more than there are.
        """
        distinct = {
            result['sample_id']: result
            for results in all_gather_object(self.results)
            for result in results
        }
        self.results.clear()
        if len(distinct) != size:
            raise RuntimeError(
                f'{len(distinct):,} distinct samples were scored, the data set has '
                f'{size:,}: a sampler leaves labels out, or sample_ids are not unique.'
            )
        metrics: list[Any] = [None]
        if is_main_process():
            # In one order, whatever the number of processes, so that sums of floats and
            # files of results are the same.
            results = [distinct[key] for key in sorted(distinct)]
            _report_invalid(results)
            metrics = [
                {
                    f'{self.prefix}/{key}': value
                    for key, value in self.compute_metrics(results).items()
                }
            ]
            if self.out_file:
                write_results(Path(str(self.out_file)), self.rows_of(results))
        broadcast_object_list(metrics)
        return metrics[0]

    @property
    @abstractmethod
    def measures(self) -> tuple[str, ...]:
        """Names of the numbers of all results, without prefix and group."""

    @abstractmethod
    def rows_of(self, results: list[dict]) -> list[dict]:
        """The rows of the file of results."""


def expressions_and_ids(sample: dict) -> tuple[list[str], list[str], list, list]:
    """Expressions, ids, splits and sources of the E labels of a sample.

    Args:
        sample (dict): With ``text`` and ``sample_id``; ``split`` and ``source`` where
            the data set has them.

    Returns:
        tuple[list, list, list, list]: Of E values each.

    Raises:
        ValueError: There is no ``sample_id``, or another number of them.
    """
    texts, ids, splits, sources = (
        _as_list(sample.get(key)) for key in ('text', 'sample_id', 'split', 'source')
    )
    if not ids:
        raise ValueError(
            f'{sample.get("img_path")}: no `sample_id`; put it into `meta_keys` of the '
            'packing transform, or use PackGroundingInputs.'
        )
    if len(texts) != len(ids):
        raise ValueError(
            f'{sample.get("img_path")}: {len(ids)} labels, but {len(texts)} '
            'expressions.'
        )
    return texts, ids, splits or ['all'] * len(ids), sources or ['human'] * len(ids)


def has_scores(instances: dict) -> bool:
    """Whether predicted boxes have scores that mean something.

    Args:
        instances (dict): With ``scores``; they only fill up where ``scored`` is False,
            see :func:`instances_of`.
    """
    return 'scores' in instances and instances.get('scored', True)


def owners_of(instances: dict, num_expressions: int) -> np.ndarray:
    """The expression that each box of a sample belongs to.

    Args:
        instances (dict): ``bboxes`` (M, 4), and ``labels`` (M, ), the numbers of their
            expressions. A sample of one expression needs no labels: detectors of
            MMDetection write classes there.
        num_expressions (int): E.

    Returns:
        np.ndarray: int64 (M, ), in [0, E).

    Raises:
        ValueError: Several expressions, and no label for each box.
    """
    count = len(instances['bboxes'])
    if num_expressions == 1:
        return np.zeros(count, np.int64)
    labels = instances.get('labels')
    if labels is None and count == num_expressions:
        return np.arange(count)
    if labels is None:
        raise ValueError(
            f'{count} boxes for {num_expressions} expressions, without `labels` (the '
            'numbers of their expressions): such a detector takes one expression at a '
            'time (no ImageGroupSampler).'
        )
    owners = torch.as_tensor(labels).long().cpu().numpy().reshape(-1)
    wrong = owners[(owners < 0) | (owners >= num_expressions)]
    if len(owners) != count or len(wrong):
        raise ValueError(
            f'{count} boxes have the labels {owners[:10].tolist()}; expected the '
            f'number of an expression, from 0 to {num_expressions - 1}, for each.'
        )
    return owners


def invalid_boxes(boxes: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    """Which true boxes (B, 4), xyxy, cannot be right in an image; bool (B, )."""
    sizes = np.array([tuple(shape or (-1, -1))[:2]] * len(boxes)).reshape(-1, 2)
    faults = [mask for _, mask in box_faults(boxes, sizes)]
    return np.any(faults, axis=0)


def _as_list(value: Any) -> list:
    """A list of one value, or of the values in a sequence."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _report_invalid(results: list[dict]) -> None:
    """Log how many labels are misses whatever is predicted, and the first of them."""
    invalid = [result for result in results if result.get('invalid')]
    if invalid:
        named = ', '.join(result['sample_id'] for result in invalid[:3])
        print_log(
            f'{len(invalid):,} of {len(results):,} labels have an invalid box (not '
            'finite, empty, or outside of the image) and count as misses: '
            f'{named}{", ..." if len(invalid) > 3 else ""}.',
            logger='current',
            level=logging.WARNING,
        )
