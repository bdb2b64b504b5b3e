"""An exported detector in the place of the one it was exported from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from projects.clip_vg_core.runtime.deployment_file import read_deployment
from projects.clip_vg_core.runtime.graphs import BACKENDS, PRECISIONS, open_graph

from ..models.clip_vg import patch_padding
from ..models.data_preprocessor import pixel_padding
from ..models.expression_tokenizer import load_tokenizer
from ..models.fusion import FusionTokens, valid_tokens
from ..models.predictions import expressions_of, instances_of

__all__ = ['ServedCLIPVG', 'served_config', 'use_exported']

# More are no faster, and are padded to the longest.
EXPRESSIONS_AT_ONCE = 16


@MODELS.register_module()
class ServedCLIPVG(BaseModel):
    """Exported detector, which predicts as ``CLIPVG.predict`` does, on the CPU.

    Images with equally many valid patches are run together, and expressions of
    about equal length, so that hardly any token only fills up.

    Args:
        folder (str): The exported folder.
        backend (str): 'openvino' or 'onnxruntime'. Defaults to 'openvino', which was
            faster (docs/serving.md).
        precision (str): 'f32'; 'bf16', with OpenVINO on a CPU that has it; 'int8', if
            the folder has such weights. Defaults to 'f32'.
        threads (int, optional): Defaults to None: all cores.

    Raises:
        FileNotFoundError: The folder, or a file in it, is not there.
        ImportError: The backend is not installed.
        ValueError: A file of the folder is broken or of another export, or the
            precision cannot be had.
    """

    def __init__(
        self,
        folder: str,
        backend: str = 'openvino',
        precision: str = 'f32',
        threads: int | None = None,
    ) -> None:
        for what, given, known in (
            ('backend', backend, BACKENDS),
            ('precision', precision, PRECISIONS),
        ):
            if given not in known:
                raise ValueError(f'{what}={given!r}; expected one of {known}.')
        self.deployment = read_deployment(Path(folder))
        super().__init__(self.deployment.data_preprocessor)
        kind = 'int8' if precision == 'int8' else 'float'
        files = self.deployment.graph_files(kind, Path(folder))
        self.image_stage, self.grounding_stage = (
            open_graph(file, backend, precision, threads) for file in files
        )
        self.tokenize = load_tokenizer(self.deployment.text, Path(folder))
        self.score_thr = self.deployment.score_thr

    def forward(
        self, inputs: Tensor, data_samples: SampleList, mode: str = 'predict'
    ) -> SampleList:
        """Predict; an exported detector can do nothing else."""
        if mode != 'predict':
            raise ValueError(f'mode={mode!r}, but an exported detector only predicts.')
        return self.predict(inputs, data_samples)

    def predict(
        self, inputs: Tensor, data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict Q boxes for every expression; see ``CLIPVG.predict``."""
        texts = [expressions_of(sample) for sample in data_samples]
        image_index = np.repeat(np.arange(len(texts)), [len(own) for own in texts])
        ids = self.tokenize([text for own in texts for text in own])
        token_ids, lengths = ids.numpy(), self.tokenize.lengths(ids).numpy()
        rows, columns = self.deployment.grid_size
        padding = patch_padding(
            pixel_padding(data_samples, inputs), (rows, columns)
        ).cpu()
        images = inputs.float().cpu()
        shape = len(token_ids), self.deployment.num_queries
        outputs = [np.empty((*shape, 4), np.float32), np.ones(shape, np.float32)]
        for chosen, parts in plan_calls(padding, image_index, lengths):
            valid, filling = valid_tokens(
                padding[chosen], class_token=self.deployment.class_token
            )
            encoded = self.image_stage(
                dict(images=images[chosen].numpy(), kept=valid.numpy())
            )
            feed = dict(zip(FusionTokens._fields, encoded, strict=True))
            feed['padding'] = filling.numpy()
            for part, length in parts:
                predicted = self.grounding_stage(
                    dict(
                        feed,
                        token_ids=token_ids[part, :length],
                        image_index=np.searchsorted(chosen, image_index[part]),
                    )
                )
                # Without a confidence head, the graph has no scores and they stay 1.
                for output, values in zip(outputs, predicted, strict=False):
                    output[part] = values.reshape(len(part), *output.shape[1:])
        boxes, scores = (torch.from_numpy(output).flatten(0, 1) for output in outputs)
        boxes = bbox_cxcywh_to_xyxy(boxes).clamp(0, 1)
        instances = instances_of(data_samples, boxes, scores, rescale)
        for sample, own in zip(data_samples, instances, strict=True):
            sample.pred_instances = own
        return data_samples


def plan_calls(
    padding: Tensor, image_index: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[np.ndarray, list[tuple[np.ndarray, int]]]]:
    """Group images and expressions into calls of the graphs.

    Args:
        padding (Tensor): True where a patch is padding, of shape (B, P).
        image_index (np.ndarray): The image of each expression, of shape (E, ).
        lengths (np.ndarray): Tokens of each expression, of shape (E, ).

    Yields:
        tuple: Images with equally many patches, ascending; and their expressions
        in parts, each with the length of its longest.
    """
    counts = padding.sum(1).numpy()
    for count in np.unique(counts):
        images = np.flatnonzero(counts == count)
        rows = np.flatnonzero(np.isin(image_index, images))
        # By length, so that each part is padded to about its own.
        rows = rows[np.argsort(lengths[rows], kind='stable')]
        parts = np.array_split(rows, -(-len(rows) // EXPRESSIONS_AT_ONCE))
        yield images, [(part, int(lengths[part[-1]])) for part in parts]


def served_config(folder: str | Path, **options: Any) -> Config:
    """A config whose model is an exported one, and whose test pipeline is its.

    Args:
        folder (str or Path): The exported folder.
        options: Of :class:`ServedCLIPVG`.

    Raises:
        FileNotFoundError: It is no exported folder.
        ValueError: Its file is broken, or names something else than transforms.
    """
    deployment = read_deployment(Path(folder))
    values: dict[str, Any] = dict(
        model=dict(type='ServedCLIPVG', folder=str(folder), **options),
        test_dataloader=dict(dataset=dict(pipeline=deployment.pipeline)),
    )
    return Config(values)


def use_exported(cfg: Config, folder: Path, **options: Any) -> None:
    """Put an exported detector and its transforms into a config, in place.

    Args:
        cfg (Config): With ``model`` and ``test_dataloader``.
        folder (Path): The exported folder.
        options: Of :class:`ServedCLIPVG`.
    """
    served = served_config(folder, **options)
    cfg.model = served.model
    cfg.test_dataloader.dataset.pipeline = served.test_dataloader.dataset.pipeline
