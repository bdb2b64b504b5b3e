"""A score threshold in the config of a checkpoint."""

from pathlib import Path

from mmengine.runner import save_checkpoint

from .checkpoint_config import parse_config_text
from .renamed_options import rename_options
from .safe_loading import read_checkpoint
from .work_dir import find_weights

__all__ = ['write_score_thr']


def write_score_thr(src: str | Path, out: Path, score_thr: float) -> None:
    """Write a checkpoint whose config has ``model.test_cfg.score_thr``.

    Args:
        src (str or Path): A checkpoint, or a work dir; it stays as it is.
        out (Path): The new checkpoint, another file. It has weights and meta; a
            training run is not resumed from it.
        score_thr (float): Least score of a prediction that is shown, in [0, 1].

    Raises:
        ValueError: The checkpoint holds no config of a model, or is ``out`` itself.
    """
    weights = find_weights(src)
    if out.exists() and out.samefile(weights):
        raise ValueError(
            f'{out} is the checkpoint itself, which stays as it is: give another file.'
        )
    checkpoint = read_checkpoint(weights)
    text = checkpoint['meta'].get('cfg')
    if not isinstance(text, str):
        raise ValueError(
            f'{weights} has no config in its meta, where the threshold would be; '
            'expected a checkpoint of tools/train.py.'
        )
    cfg = parse_config_text(text, str(weights))
    rename_options(list(cfg.values()))
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{weights}: its config has no model.')
    cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, score_thr=score_thr)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        dict(
            meta=dict(checkpoint['meta'], cfg=cfg.pretty_text),
            state_dict=checkpoint['state_dict'],
        ),
        str(out),
        backend_args=dict(backend='AtomicLocalBackend'),
    )
