"""Pack a sample with what grounding needs."""

from collections.abc import Sequence

import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

__all__ = ['PackGroundingInputs']


@TRANSFORMS.register_module()
class PackGroundingInputs(PackDetInputs):
    """``PackDetInputs`` that packs the expressions.

    Modifications:

    * ``text``, ``sample_id``, ``split``, ``source`` and ``letterbox`` are packed, and
      what MMDetection's Grounding DINO takes as its prompt;
    * with ``custom_entities``, 'red car. left man' is two expressions, as there;
    * ``gt_instances`` of T boxes has ``labels`` (T, ), the number of each box's
      expression in ``text``, and ``label_names``, these expressions, which
      MMDetection's visualiser writes at the boxes. With one target for each expression
      they are 0, 1, ... and the expressions in order;
    * a sample with ``num_targets`` that has lost boxes since it was loaded, e.g. in
      MMDetection's ``RandomCrop``, is dropped, as MMDetection drops samples: its
      expressions would be of other targets.

    Args:
        meta_keys (Sequence[str]): Keys packed beside image and boxes.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'letterbox',
            'flip',
            'flip_direction',
            'text',
            'sample_id',
            'split',
            'source',
            'upright',
            'custom_entities',
            'tokens_positive',
        ),
    ) -> None:
        super().__init__(tuple(meta_keys))

    def transform(self, results: dict) -> dict | None:
        """Pack ``inputs`` and ``data_samples``; None drops the sample."""
        counts = results.get('num_targets')
        counts = [counts] if isinstance(counts, int) else counts
        has_boxes = 'gt_bboxes' in results
        if counts is not None and has_boxes and len(results['gt_bboxes']) < sum(counts):
            return None
        # As Grounding DINO splits its prompt, so that both count the same expressions.
        if results.get('custom_entities') and isinstance(results['text'], str):
            parts = results['text'].strip('. ').split('. ')
            results['text'] = [part.strip() for part in parts if part.strip()]
        packed = super().transform(results)
        instances = packed['data_samples'].gt_instances
        text = results.get('text')
        names = [text] if isinstance(text, str) else list(text or [])
        if counts is not None and has_boxes and len(counts) == len(names):
            # The data set has numbered the boxes by their expressions.
            instances.label_names = [names[i] for i in instances.labels.tolist()]
        elif has_boxes and len(instances) == len(names):
            instances.labels = torch.arange(len(names))
            instances.label_names = names
        return packed
