"""A trained detector as a folder that can be uploaded to a hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from ..checkpoints.checkpoint_config import check_detector_config
from ..checkpoints.hub_folder import CARD, CONFIG, WEIGHTS, write_hub
from ..checkpoints.safe_loading import read_checkpoint
from .model_card import Evaluation, model_card

__all__ = ['publish_detector']


def publish_detector(
    model: nn.Module,
    cfg: Config,
    training: Config,
    meta: Mapping[str, Any],
    folder: Path,
    name: str,
    evaluations: Sequence[Evaluation] = (),
    license_id: str | None = None,
    overwrite: bool = False,
) -> int:
    """Write weights, config and model card, and read the weights again.

    The config has what inference needs: the model and the test transforms. It names no
    files, neither of weights nor of data.

    Args:
        model (CLIPVG): With its weights.
        cfg (Config): With ``model`` and ``test_dataloader.dataset.pipeline``.
        training (Config): That of the training run, of which the card tells.
        meta (Mapping[str, Any]): That of the checkpoint, of which the card tells.
        folder (Path): Made if it is not there.
        name (str): Of the repository, for the card.
        evaluations (Sequence[Evaluation]): Defaults to none.
        license_id (str, optional): Of the weights, for the card. Defaults to None.
        overwrite (bool): Whether files that are there are replaced. Defaults to False.

    Returns:
        int: How many numbers the weights have.

    Raises:
        FileExistsError: The folder has one of the files.
        RuntimeError: The weights that are read are other ones.
        ValueError: The config has what :class:`GroundingInferencer` would refuse.
    """
    found = [n for n in (WEIGHTS, CONFIG, CARD) if (folder / n).exists()]
    if found and not overwrite:
        raise FileExistsError(
            f'{folder} has {found} already; give another --out-dir, or --overwrite to '
            'replace them.'
        )
    plain = Config(
        dict(
            model=cfg.model,
            test_dataloader=dict(
                dataset=dict(pipeline=cfg.test_dataloader.dataset.pipeline)
            ),
        )
    )
    check_detector_config(plain, f'{folder / CONFIG} (not written)')
    state = model.state_dict()
    numbers = sum(value.numel() for value in state.values())
    card = model_card(name, training, meta, numbers, evaluations, license_id)
    folder.mkdir(parents=True, exist_ok=True)
    write_hub(folder, state, plain.to_dict(), card)
    again = read_checkpoint(folder / WEIGHTS)['state_dict']
    if again.keys() != state.keys() or not all(
        torch.equal(again[key], state[key].cpu()) for key in again
    ):
        raise RuntimeError(
            f'{folder / WEIGHTS} does not have the weights that were written; the disk '
            'may be full or damaged. Write it again with --overwrite.'
        )
    return numbers
