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
    * ``gt_instances`` has ``label_names``, the expressions, and ``labels`` 0, 1,
      ..., so that MMDetection's visualiser writes them at the boxes.

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

    def transform(self, results: dict) -> dict:
        """Pack ``inputs`` and ``data_samples``; see :class:`PackDetInputs`."""
        # As Grounding DINO splits its prompt, so that both count the same expressions.
        if results.get('custom_entities') and isinstance(results['text'], str):
            parts = results['text'].strip('. ').split('. ')
            results['text'] = [part.strip() for part in parts if part.strip()]
        packed = super().transform(results)
        instances = packed['data_samples'].gt_instances
        text = results.get('text')
        names = [text] if isinstance(text, str) else list(text or [])
        # A label without a box, or with several, has no one box for its name.
        if 'bboxes' in instances and len(instances) == len(names):
            instances.labels = torch.arange(len(names))
            instances.label_names = names
        return packed
