"""Weights and activations of an exported detector in 8 bits, by NNCF."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import InstanceList
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.clip_vg_core.data.questions import read_questions
from projects.clip_vg_core.runtime.deployment_file import (
    GRAPHS,
    graph_name,
    read_deployment,
    write_deployment,
)
from projects.clip_vg_core.runtime.graphs import Graph, import_extra, open_graph
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.image_files import load_image

from ..engine.scoring import evaluation_view, plan_batches
from .served_clip_vg import ServedCLIPVG

__all__ = [
    'labelled_batches',
    'quantize_deployment',
    'question_batches',
    'spread',
    'write_quantized',
]

Feeds = list[dict[str, np.ndarray]]
_LEAST_AGREEMENT = 0.5


def quantize_deployment(folder: Path, batches: Iterable[dict]) -> float:
    """Add graphs in 8 bits to an exported folder.

    Args:
        folder (Path): The exported folder.
        batches (Iterable[dict]): Calibration data as a data loader gives it: images
            and expressions like those to be served. A hundred or more images are
            good; labels are not needed.

    Returns:
        float: Mean IoU of the predictions with those in float32, on the same data, of
        boxes whose score in float32 is shown.

    Raises:
        ImportError: NNCF or OpenVINO is not installed.
        RuntimeError: The predictions have little in common with those in float32.
        ValueError: There is no image.
    """
    batches = list(batches)
    if not batches:
        raise ValueError('There is no image to calibrate with.')
    model = ServedCLIPVG(str(folder))
    feeds: tuple[Feeds, Feeds] = ([], [])
    graphs = model.exported
    graphs.image_stage = _recording(graphs.image_stage, feeds[0])
    graphs.grounding_stage = _recording(graphs.grounding_stage, feeds[1])
    expected = _predictions(model, batches)
    files = [folder / graph_name(graph, 'int8') for graph in GRAPHS]
    for graph, file, fed in zip(GRAPHS, files, feeds, strict=True):
        write_quantized(folder / graph_name(graph, 'float'), fed, file)
    graphs.image_stage, graphs.grounding_stage = (
        open_graph(file, 'openvino', 'int8') for file in files
    )
    overlaps = bbox_overlaps(
        torch.cat([sample.bboxes for sample in _predictions(model, batches)]),
        torch.cat([sample.bboxes for sample in expected]),
        is_aligned=True,
    )
    # Boxes that mean nothing, as most of several queries, may be anywhere.
    shown = torch.cat([sample.scores for sample in expected]) >= model.score_thr
    agreement = float((overlaps[shown] if shown.any() else overlaps).mean())
    # Not `<`: NaN is smaller than nothing.
    if not agreement >= _LEAST_AGREEMENT:
        raise RuntimeError(
            f'In 8 bits, predictions have a mean IoU of {agreement:.2f} with those in '
            f'float32; expected {_LEAST_AGREEMENT} or more. They are not written into '
            f'{folder}. Calibrate with more images, like those to be served.'
        )
    deployment = read_deployment(folder)
    deployment.add_graphs('int8', folder)
    write_deployment(deployment, folder)
    return agreement


def write_quantized(source: Path, feeds: Feeds, path: Path) -> None:
    """Write a graph in 8 bits, calibrated by inputs that were recorded."""
    # NNCF would report its use to its makers.
    os.environ.setdefault('NNCF_CI', '1')
    nncf, onnx = import_extra('nncf'), import_extra('onnx')
    nncf.set_log_level(logging.ERROR)
    quantized: Any = nncf.quantize(
        onnx.load(source),
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
    )
    with replacing(path) as partial:
        onnx.save(quantized, partial)


def _predictions(model: ServedCLIPVG, batches: Sequence[dict]) -> InstanceList:
    """Predictions of all images, in their pixels."""
    return [
        sample.pred_instances for batch in batches for sample in model.test_step(batch)
    ]


def _recording(graph: Graph, feeds: Feeds) -> Graph:
    """The graph, recording a copy of its inputs."""

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        # Copied, as a runtime may reuse the memory of its inputs.
        feeds.append({name: value.copy() for name, value in feed.items()})
        return graph(feed)

    return run


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` of the numbers below ``count``, evenly apart."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def question_batches(
    folder: Path, questions: Path, collate: Callable[..., dict], most: int
) -> Iterator[dict]:
    """A user's images with the expressions to ground in them.

    Args:
        folder (Path): Image folder.
        questions (Path): See :func:`read_questions`.
        collate (Callable): ``GroundingInferencer.collate``, which applies the test
            transforms.
        most (int): Images to take, evenly spread over the file.

    Yields:
        dict: A batch of one image.
    """
    entries = list(read_questions(questions, folder).items())
    for index in spread(len(entries), most):
        name, texts = entries[index]
        yield collate([load_image(folder / name)], [texts])


def labelled_batches(cfg: Config, most: int) -> Iterator[dict]:
    """Images that a config trains on, through its test transforms.

    Args:
        cfg (Config): With ``train_dataloader`` and ``test_dataloader``.
        most (int): Images to take, evenly spread.

    Yields:
        dict: A batch of one image.
    """
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    view = evaluation_view(dataset, cfg.test_dataloader.dataset.pipeline)
    batches = plan_batches(view, 1, True, np.arange(len(view)))
    for index in spread(len(batches), most):
        yield pseudo_collate([view[labels] for labels in batches[index]])
