"""Draw from the labels that a curriculum selects."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from projects.clip_vg_core.curriculum.selection import select_reliable
from projects.clip_vg_core.data.grouping import ImageGroups, Plan, draw, split_by_weight

from .image_group_sampler import image_index_of

__all__ = ['CurriculumSampler']


@DATA_SAMPLERS.register_module()
class CurriculumSampler(Sampler):
    """Sample labels whose reliability exceeds a threshold, in epochs of one length.

    MMEngine fixes the length of an epoch, and with it all schedules, when the loop
    is built. So labels are drawn with reshuffling up to that length, however many are
    selected; every label of a source comes once before any of it comes again. All
    ranks draw the same plan and take turns in it.

    Args:
        dataset (BaseDataset): A :obj:`RefExpDataset`; any other where neither
            ``grouped``, ``sources`` nor ``weights`` are given.
        seed (int, optional): Defaults to None: drawn, the same on all ranks.
        sources (dict, optional): What each source contributes:
            ``dict(template=dict(reliability='m__template.npy', threshold=0.5))``.
            Labels of a source that is not named are not drawn; without
            ``reliability`` all of its labels are; of a list of files the mean counts.
            Defaults to None: all labels.
        weights (dict, optional): Relative share of each source in an epoch.
            Defaults to None: by their size, as in the paper.
        grouped (bool): Whether labels of an image come together as one sample.
            Defaults to False.
        max_expressions (int, optional): Most labels in a group. Defaults to None.
        epoch_length (int or str, optional): Samples (labels, or groups) in an epoch
            of all ranks together; 'selected': as many as the first selection has, as
            in the official code. Defaults to None: as many as the whole data set has.
        min_labels (int): Least number of selected labels. Defaults to 1; the hooks
            raise it to the size of a batch.
        subset (dict, optional): ``dict(size=1000, seed=0)`` selects so many of the
            selected labels at random: the control of an experiment. Defaults to None.

    Raises:
        ValueError: The selection is too small, or a source is not in the data set.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        seed: int | None = None,
        sources: Mapping[str, Mapping[str, Any]] | None = None,
        weights: Mapping[str, float] | None = None,
        grouped: bool = False,
        max_expressions: int | None = None,
        epoch_length: int | str | None = None,
        min_labels: int = 1,
        subset: Mapping[str, int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.weights = dict(weights) if weights else None
        self.grouped = grouped
        self.max_expressions = max_expressions
        self.min_labels = min_labels
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()
        if max_expressions is not None and max_expressions < 1:
            raise ValueError(f'max_expressions must be >= 1, got {max_expressions}.')
        self._check_specs(sources or {}, subset)
        if grouped or sources or weights:
            image_index_of(dataset, type(self).__name__)
        self._check_sources([*(sources or ()), *(weights or ())])
        if isinstance(epoch_length, str) and epoch_length != 'selected':
            raise ValueError(
                f"epoch_length={epoch_length!r}; expected a number or 'selected'."
            )
        self.described = 'all labels'
        selection = np.arange(len(dataset))
        if sources is not None:
            selection = self._select(sources)
            self.described = ', '.join(
                f'{name} > {spec["threshold"]:g} of {spec["reliability"]}'
                if spec.get('reliability')
                else f'all of {name}'
                for name, spec in sources.items()
            )
        if subset is not None:
            rng = np.random.default_rng(subset.get('seed', 0))
            size = min(subset['size'], len(selection))
            selection = np.sort(rng.choice(selection, size, replace=False))
        self.set_selection(selection)
        if isinstance(epoch_length, str):
            epoch_length = sum(len(pool) for pool in self._pools)
        elif epoch_length is None:
            epoch_length = len(self._groups(None)) if grouped else len(dataset)
        self.epoch_length = epoch_length

    def _check_specs(
        self,
        sources: Mapping[str, Mapping[str, Any]],
        subset: Mapping[str, int] | None,
    ) -> None:
        for name, spec in sources.items():
            if spec.get('reliability') and spec.get('threshold') is None:
                raise ValueError(
                    f'CurriculumSampler: sources[{name!r}]={dict(spec)} has a '
                    'reliability and no threshold.'
                )
        weights = self.weights or {}
        if weights and (min(weights.values()) < 0 or not any(weights.values())):
            raise ValueError(f'CurriculumSampler: weights={weights}; expected >= 0.')
        if weights and set(sources) - set(weights):
            raise ValueError(
                f'CurriculumSampler: weights={weights} leave out '
                f'{sorted(set(sources) - set(weights))}: name all, 0 for none.'
            )
        if subset is not None and 'size' not in subset:
            raise ValueError(f'CurriculumSampler: subset={subset} has no size.')

    def _check_sources(self, names: list[str]) -> None:
        known = self.dataset.table.source_names if names else ()
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(
                f'CurriculumSampler: no source {unknown} in the data set, which has '
                f'{list(known)}. Name them with `source` of RefExpDataset.'
            )

    def _select(self, sources: Mapping[str, Mapping[str, Any]]) -> np.ndarray:
        table = self.dataset.table
        selected = []
        for name, spec in sources.items():
            labels = np.flatnonzero(table.sources == table.source_names.index(name))
            files = spec.get('reliability')
            if files:
                files = [files] if isinstance(files, str | Path) else files
                values = np.mean(
                    [self.dataset.read_reliability(file)[labels] for file in files], 0
                )
                labels = labels[select_reliable(values, spec['threshold'])]
            selected.append(labels)
        return np.sort(np.concatenate(selected or [np.arange(0)]))

    def set_selection(self, label_indices: np.ndarray) -> None:
        """Select the labels that are drawn from the next epoch on.

        Args:
            label_indices (np.ndarray): Indices into the data set, in any order.

        Raises:
            ValueError: They are out of range, doubled, or too few.
        """
        selection = np.sort(np.asarray(label_indices, dtype=np.int64))
        if (selection[1:] == selection[:-1]).any():
            raise ValueError('CurriculumSampler: the selection has doubled labels.')
        if len(selection) and not 0 <= selection[0] <= selection[-1] < len(
            self.dataset
        ):
            raise ValueError(
                f'CurriculumSampler: the selection has labels {selection[0]} to '
                f'{selection[-1]}; the data set has {len(self.dataset):,}.'
            )
        self._check_size(len(selection))
        self._pools = [self._pool(labels) for labels in self._by_source(selection)]
        self.selection = selection

    def require(self, min_labels: int) -> None:
        """Require a number of selected labels, e.g. those of a batch.

        Args:
            min_labels (int): Least number, also of later selections.

        Raises:
            ValueError: Fewer are selected.
        """
        self.min_labels = max(self.min_labels, min_labels)
        self._check_size(len(self.selection))

    def _check_size(self, count: int) -> None:
        if count < self.min_labels:
            raise ValueError(
                f'{count:,} of {len(self.dataset):,} labels passed the '
                f'selection ({self.described}), at least {self.min_labels:,} are '
                'needed to fill a batch: lower the threshold or the batch size, or '
                'look at the reliability, it may come from a measurer that learnt '
                'nothing.'
            )

    def _groups(self, labels: np.ndarray | None) -> ImageGroups:
        return ImageGroups(self.dataset.table.image_index, labels, self.max_expressions)

    def _by_source(self, selection: np.ndarray) -> list[np.ndarray]:
        """The selection, cut up where sources are mixed by weight."""
        if self.weights is None:
            return [selection]
        table = self.dataset.table
        parts = []
        for name in self.weights:
            code = table.source_names.index(name)
            parts.append(selection[table.sources[selection] == code])
            if not len(parts[-1]) and self.weights[name]:
                raise ValueError(
                    f'0 labels of the source {name!r} passed the selection '
                    f'({self.described}), but its weight is {self.weights[name]}.'
                )
        return parts

    def _pool(self, labels: np.ndarray) -> ImageGroups | np.ndarray:
        return self._groups(labels) if self.grouped else labels

    def plan(self) -> Plan:
        """Samples of this epoch, of all ranks.

        Returns:
            Plan: Of ``len(self) * world_size`` samples.
        """
        # Of seed and epoch alone, so that all ranks draw the same plan.
        rng = np.random.default_rng((self.seed, self.epoch))
        length = len(self) * self.world_size
        weights = np.array([*self.weights.values()] if self.weights else [1.0])
        plans = [
            _draw_from(pool, int(part), rng)
            for pool, part in zip(
                self._pools, split_by_weight(length, weights), strict=True
            )
        ]
        if len(plans) == 1:
            return plans[0]
        offsets = np.cumsum([0] + [len(plan.order) for plan in plans[:-1]])
        joined = Plan(
            np.concatenate([plan.order for plan in plans]),
            np.concatenate(
                [p.starts + offset for p, offset in zip(plans, offsets, strict=True)]
            ),
            np.concatenate([plan.sizes for plan in plans]),
        )
        # Sources one after another would be batches of one source.
        return joined.take(rng.permutation(len(joined)))

    def __len__(self) -> int:
        """Samples of this rank in an epoch."""
        return -(-self.epoch_length // self.world_size)

    def __iter__(self) -> Iterator[int | tuple[int, ...]]:
        plan = self.plan().take(slice(self.rank, None, self.world_size))
        if self.grouped:
            return iter(plan)
        return iter(plan.order[plan.starts].tolist())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, by which each one is shuffled differently."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, with the fingerprint of the labels."""
        state = dict(seed=self.seed, epoch=self.epoch, selection=self.selection)
        if hasattr(self.dataset, 'fingerprint'):
            state['labels_sha256'] = self.dataset.fingerprint()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            ValueError: The selection is of other labels than the data set's.
        """
        before = state.get('labels_sha256')  # None in checkpoints of version 0.1
        if before is not None and before != self.dataset.fingerprint():
            raise ValueError(
                f'The checkpoint selects {len(state["selection"]):,} labels of other '
                f'ones than the {len(self.dataset):,} of {self.dataset.ann_file}: '
                'their names, images, expressions or boxes have changed since. Resume '
                'with the data it was trained on, or train anew in another work dir.'
            )
        self.seed, self.epoch = int(state['seed']), int(state['epoch'])
        self.set_selection(np.asarray(state['selection']))


def _draw_from(
    pool: ImageGroups | np.ndarray, length: int, rng: np.random.Generator
) -> Plan:
    if isinstance(pool, ImageGroups):
        return pool.plan(length, rng)
    order = pool[draw(len(pool), length, rng)] if length else pool[:0]
    return Plan(order, np.arange(length), np.ones(length, np.int64))
