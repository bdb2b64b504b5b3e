"""Pictures and expressions to calibrate a quantised detector with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.clip_vg_core.data.questions import read_questions

from ..apis.grounding_inferencer import GroundingInferencer, load_picture
from ..engine.scoring import evaluation_view, plan_batches

__all__ = ['labelled_batches', 'question_batches', 'spread']


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` of the numbers below ``count``, evenly apart."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def question_batches(
    folder: Path, questions: Path, inferencer: GroundingInferencer, most: int
) -> Iterator[dict]:
    """A user's pictures with what is asked about them.

    Args:
        folder (Path): Of the pictures.
        questions (Path): See :func:`read_questions`.
        inferencer (GroundingInferencer): Whose transforms they go through.
        most (int): Pictures to take, evenly spread over the file.

    Yields:
        dict: A batch of one picture.
    """
    asked = list(read_questions(questions, folder).items())
    for index in spread(len(asked), most):
        name, texts = asked[index]
        yield inferencer.collate([load_picture(folder / name)], [texts])


def labelled_batches(cfg: Config, most: int) -> Iterator[dict]:
    """Pictures that a config trains on, through its test transforms.

    Args:
        cfg (Config): With ``train_dataloader`` and ``test_dataloader``.
        most (int): Pictures to take, evenly spread.

    Yields:
        dict: A batch of one picture.
    """
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    view = evaluation_view(dataset, cfg.test_dataloader.dataset.pipeline)
    batches = plan_batches(view, 1, True, np.arange(len(view)))
    for index in spread(len(batches), most):
        yield pseudo_collate([view[labels] for labels in batches[index]])
