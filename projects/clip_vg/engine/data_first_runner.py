"""MMEngine's runner, but a mistake in the data is found before weights are fetched."""

from typing import Any

from mmengine.runner import Runner
from torch import nn

__all__ = ['data_first']


def data_first(*splits: str) -> type[Runner]:
    """A runner that reads its data before it builds its model.

    Modifications of :class:`Runner`: it builds the loaders in the order in which they
    are needed, after the model, for which CLIP may have to be downloaded.

    Args:
        splits (str): Of 'train', 'val' and 'test', what the run needs.

    Returns:
        type[Runner]: The class.
    """

    class DataFirstRunner(Runner):
        def build_model(self, model: nn.Module | dict) -> nn.Module:
            """Build the loaders first; the loops take them as they are."""
            diff_rank_seed = self._randomness_cfg.get('diff_rank_seed', False)
            for split in splits:
                name = f'_{split}_dataloader'
                loader: Any = getattr(self, name)
                if isinstance(loader, dict):
                    loader = self.build_dataloader(loader, self.seed, diff_rank_seed)
                    setattr(self, name, loader)
            return super().build_model(model)

    return DataFirstRunner
