"""An exported detector in the place of the one it was exported from."""

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from projects.clip_vg_core.runtime.deployment_file import read_deployment
from projects.clip_vg_core.runtime.exported_model import ExportedModel
from projects.clip_vg_core.runtime.preprocessing import patch_padding

from ..models.data_preprocessor import pixel_padding
from ..models.predictions import expressions_of, instances_of

__all__ = ['ServedCLIPVG', 'served_config', 'use_exported']


@MODELS.register_module()
class ServedCLIPVG(BaseModel):
    """Exported detector, which predicts as ``CLIPVG.predict`` does, on the CPU.

    What MMDetection's transforms and preprocessor have made goes through
    :class:`ExportedModel`, which needs neither.

    Args:
        folder (str): The exported folder.
        backend (str): 'openvino' or 'onnxruntime'. Defaults to 'openvino', which was
            faster (docs/serving.md).
        precision (str): See :class:`ExportedModel`. Defaults to 'f32'.
        threads (int, optional): Defaults to None: all cores.
    """

    def __init__(
        self,
        folder: str,
        backend: str = 'openvino',
        precision: str = 'f32',
        threads: int | None = None,
    ) -> None:
        exported = ExportedModel(folder, backend, precision, threads)
        super().__init__(exported.deployment.data_preprocessor)
        self.exported = exported
        self.score_thr = exported.deployment.score_thr
        self.scored = exported.deployment.scored

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
        padding = patch_padding(
            pixel_padding(data_samples, inputs).cpu().numpy(),
            self.exported.deployment.grid_size,
        )
        encoded = self.exported.encode(inputs.float().cpu().numpy(), padding)
        boxes, scores = map(torch.from_numpy, self.exported.ground(encoded, texts))
        instances = instances_of(
            data_samples, boxes.flatten(0, 1), scores.flatten(), rescale, self.scored
        )
        for sample, own in zip(data_samples, instances, strict=True):
            sample.pred_instances = own
        return data_samples


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
