"""Captions by open_clip's CoCa."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from projects.clip_vg_core.data.label_keys import images_fingerprint
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.image_files import as_rgb, open_image
from projects.clip_vg_core.utils.resumable import bind, resumable_map

from .detector import file_identity

__all__ = ['caption']


def _load(
    model: str, weights: str, device: str, upright: bool
) -> Callable[[Sequence[Path]], list[str]]:
    """A captioner as a function of files."""
    import open_clip
    from open_clip import coca_model

    if not coca_model._has_transformers:
        raise ModuleNotFoundError(
            'CoCa generates text by classes of transformers that open_clip could not '
            "import: pip install -e '.[captions]' (transformers < 4.56; later "
            'ones have no BeamSearchScorer).'
        )
    net, _, prepare = open_clip.create_model_and_transforms(
        model, pretrained=weights, device=device
    )
    if not isinstance(net, coca_model.CoCa):
        raise ValueError(
            f'{model!r} makes no captions; expected a CoCa of open_clip, such as '
            "'coca_ViT-L-14' with the weights 'mscoco_finetuned_laion2B-s13B-b90k'."
        )
    net.eval()

    @torch.inference_mode()
    def predict(paths: Sequence[Path]) -> list[str]:
        images = []
        for path in paths:
            with open_image(path) as image:
                images.append(prepare(as_rgb(image, upright)))
        tokens = net.generate(torch.stack(images).to(device))
        return [_clean(open_clip.decode(row)) for row in tokens]

    return predict


def _clean(text: str) -> str:
    """A caption without CLIP's marks of start and end."""
    text = text.split('<end_of_text>')[0].replace('<start_of_text>', '')
    return ' '.join(text.split()).rstrip(' .')


def caption(
    model: str,
    weights: str,
    folder: Path,
    names: Sequence[str],
    ids: Sequence[int | str],
    out: Path,
    work_dir: Path,
    *,
    batch_size: int = 8,
    device: str | None = None,
    overwrite: bool = False,
    upright: bool = False,
) -> Path:
    """Write a caption for each image, as COCO caption results.

    Args:
        model (str): A CoCa of open_clip, such as 'coca_ViT-L-14'.
        weights (str): Its tag or a file.
        folder (Path): Of the images.
        names (Sequence[str]): N images, in a fixed order.
        ids (Sequence[int or str]): Their N ids.
        out (Path): The file; what is there already is taken as it is.
        work_dir (Path): For what is not finished.
        batch_size (int): Images at once. Defaults to 8.
        device (str, optional): Defaults to None: a GPU where there is one.
        overwrite (bool): Whether captions of other images are made anew. Defaults to
            False.
        upright (bool): Whether images are turned by their EXIF entry. Defaults to
            False.

    Returns:
        Path: ``out``.

    Raises:
        ValueError: What is there is of other images (other names or bytes), or of
            another model.
    """
    origin = dict(
        images=images_fingerprint(folder, names),
        upright=upright,
        model=model,
        weights=file_identity(weights),
    )
    bind(out, origin, overwrite)
    if out.exists():
        return out
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    predict = _load(model, weights, device, upright)
    texts = resumable_map(
        work_dir / 'captions.jsonl',
        names,
        lambda batch: predict([folder / name for name in batch]),
        batch_size,
        'captioning',
        origin=origin,
        overwrite=overwrite,
    )
    with replacing(out) as partial:
        entries = [
            dict(image_id=i, caption=text) for i, text in zip(ids, texts, strict=True)
        ]
        partial.write_text(json.dumps(entries, indent=0), encoding='utf-8')
    return out
