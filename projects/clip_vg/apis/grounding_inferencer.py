"""Inferencer: images and expressions in, boxes out."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger, print_log
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor

from projects.clip_vg_core.runtime.inputs import (
    Expressions,
    ImageInput,
    check_score_thr,
    list_inputs,
)
from projects.clip_vg_core.utils.image_files import load_image
from projects.clip_vg_core.visualization.boxes import draw_predictions

from ..checkpoints.checkpoint_config import config_of_checkpoint
from ..checkpoints.hub_folder import find_pretrained
from ..checkpoints.safe_loading import read_checkpoint
from ..checkpoints.strict_loading import refuse_other_weights
from ..checkpoints.work_dir import find_checkpoint, find_weights
from ..deployment.compiled import compile_for_inference
from ..deployment.served_clip_vg import ServedCLIPVG, served_config
from ..models import CLIPVG
from ..models.visual_token_cache import VisualTokenCache

__all__ = ['GroundingInferencer']

_CONFIGS = ('.py', '.yaml', '.json')
# Transforms that need labels, or a file: the image is given here.
_LOADING = {'LoadGroundingImage', 'LoadImageFromFile', 'LoadAnnotations'}


class GroundingInferencer:
    """Boxes for expressions, as MMDetection's ``DetInferencer`` gives detections.

    An image is encoded once for all its expressions. Files are turned upright by
    their EXIF entry, as viewers do; boxes are in pixels of the upright image. Several
    threads may call it at once.

    Args:
        checkpoint_or_config (str or Path): A config; or a checkpoint: a file, a work
            dir (its best checkpoint, else its last), or the folder of a published or
            an exported detector (docs/hub.md, docs/serving.md).
        config (str or Path, optional): The config of a checkpoint. Defaults to None:
            the one that the checkpoint holds, of which only plain values are read.
        checkpoint (str or Path, optional): The weights for a config. Defaults to None:
            a config alone is a model without training, with a warning where it would
            need one (not :obj:`ZeroShotGrounding`).
        device (str, optional): Defaults to None: a GPU where there is one.
        batch_size (int): Images encoded at once. Defaults to 8.
        dtype (torch.dtype): Of the weights; ``torch.bfloat16`` is fast on CPUs with
            AMX and moves boxes by about 0.002 of the image. Defaults to float32.
        compile (bool): Whether PyTorch compiles the model at the first call, which
            takes a minute or two and a C++ compiler, and makes later ones faster; see
            :func:`compile_for_inference`. Defaults to False.
        any_size (bool): Whether files of more than 100 million pixels, and strips of
            which one side is over 100 times the other, are read as well. Defaults to
            False.
        score_thr (float, optional): Least score of a box that is given; an expression
            of which none has it is not in the image. Defaults to None: the model's
            ``test_cfg.score_thr``. Of a model without scores, every box is given.
        cache_mib (float): The most memory for visual tokens of images seen before,
            of which a further call with other expressions encodes no image again;
            those of an image of ViT-B/16 at 224 take 2.3 MiB. ``infer.visual_cache``
            counts ``hits`` and ``misses``. Of a :obj:`CLIPVG` alone. Defaults to 128;
            0: none.
        served: ``backend``, ``precision``, ``threads`` of an exported detector, which
            runs on the CPU; see :class:`ServedCLIPVG`.

    Raises:
        FileNotFoundError: There is no such file, or no checkpoint in a work dir.
        ImportError: What runs an exported detector is not installed.
        RuntimeError: ``compile`` without a C++ compiler.
        ValueError: The checkpoint holds no config, or is of another model; options
            of an exported detector are given for a checkpoint, or ``score_thr`` for a
            model without scores.

    Attributes:
        scored (bool): Whether boxes have scores.

    Examples:
        >>> infer = GroundingInferencer('work_dirs/clip_vg_refcoco')
        >>> infer('street.jpg', ['left man', 'red car'])['predictions'][0]['bboxes']
    """

    def __init__(
        self,
        checkpoint_or_config: str | Path,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 8,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        any_size: bool = False,
        score_thr: float | None = None,
        cache_mib: float = 128,
        **served: Any,
    ) -> None:
        first, loaded = Path(checkpoint_or_config).expanduser(), None
        init_default_scope('mmdet')
        if first.suffix not in _CONFIGS:
            first = find_checkpoint(first)
        if first.is_dir():
            if config or checkpoint:
                raise ValueError(
                    f'{first} is an exported detector, which has its config and '
                    f'weights: leave {config or checkpoint} out.'
                )
            self.cfg, device = served_config(first, **served), 'cpu'
        elif served:
            raise ValueError(
                f'{served}: options of an exported detector, which {first} is not. '
                'Make one with tools/deployment/export.py.'
            )
        else:
            self.cfg, loaded = _read_config(first, config, checkpoint)
        self.device = torch.device(
            device or ('cuda' if torch.cuda.is_available() else 'cpu')
        )
        self.batch_size, self.dtype = batch_size, dtype
        self._arrays = count()  # numbers those that are drawn
        self._owners: dict[Path, str] = {}  # files, and the images drawn in them
        self.any_size = any_size
        if any_size:  # PIL's own limit is of the whole process
            Image.MAX_IMAGE_PIXELS = None
        self.model = _build_model(self.cfg, loaded, checkpoint or first)
        self.model.to(self.device, dtype).eval()
        # Of other detectors, every one has scores.
        self.scored = getattr(self.model, 'scored', True)
        check_score_thr(score_thr, self.scored, checkpoint or first)
        self.score_thr = (
            getattr(self.model, 'score_thr', 0.0) if score_thr is None else score_thr
        )
        if compile:
            compile_for_inference(self.model)
        self.visual_cache: VisualTokenCache | None = None
        if isinstance(self.model, CLIPVG):
            if cache_mib > 0:
                self.visual_cache = VisualTokenCache(int(cache_mib * 2**20))
            # In the place of a folder of training: images of visitors are not kept.
            self.model.cache_visual_tokens(self.visual_cache)
        steps = self.cfg.test_dataloader.dataset.pipeline
        self.pipeline = Compose([s for s in steps if s['type'] not in _LOADING])

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, **options: Any
    ) -> 'GroundingInferencer':
        """A published detector, of a folder or of the Hugging Face hub.

        Weights are read as safetensors and the config as JSON; a downloaded folder's
        pickles and programs are neither downloaded nor read.

        Args:
            name (str or Path): A folder that ``tools/model_converters/publish.py`` or
                ``tools/deployment/export.py`` made, or the repository of such a folder,
                'owner/name'; see :func:`find_pretrained`.
            revision (str, optional): Branch, tag or commit of the repository. Defaults
                to None: its main branch.
            options: Of the constructor, such as ``device``.

        Raises:
            FileNotFoundError: There is no such folder or repository, or a file is
                missing in it.
            ValueError: A file in it cannot be read, or is of another model.
        """
        return cls(find_pretrained(name, revision), **options)

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        expressions: Expressions | Sequence[Expressions],
        return_vis: bool = False,
        out_dir: str | Path | None = None,
    ) -> dict[str, list]:
        """Ground expressions in images.

        Args:
            images (str, Path, ndarray, PIL.Image or a list of these): A file, a folder
                of images, an array (H, W, 3) in BGR as OpenCV reads it, or an image
                of PIL.
            expressions (str or list): For one image one expression or several; for
                several images one expression for all, or a list with an expression
                or a list of them for each.
            return_vis (bool): Whether ``visualization`` has the images with their
                predictions, RGB. Defaults to False.
            out_dir (str or Path, optional): Output folder of these, as
                ``vis/<name>``, or with a hash where an image of another folder has that
                name; arrays are numbered. A file that is given again in a later call
                replaces its drawing. Defaults to None.

        Returns:
            dict: ``predictions``, for each image a dict of ``texts``, the expressions;
            ``bboxes`` (a list of xyxy in pixels of the image, cut at its edges), in the
            order of the expressions, the best first; their ``scores``, each None of a
            model without scores; their ``labels``, the number of each box's expression;
            and ``image`` (the file, or its number). Of a model of one query and without
            ``score_thr``, there is one box for each expression. And ``visualization``.

        Raises:
            FileNotFoundError: There is no such image.
            ValueError: An image cannot be read, an expression is empty, or there are
                not as many expressions as images.
        """
        inputs, texts = list_inputs(images, expressions)
        results: dict[str, list] = dict(predictions=[], visualization=[])
        given_before: Counter[str] = Counter()
        for start in range(0, len(inputs), self.batch_size):
            batch = inputs[start : start + self.batch_size]
            loaded = [load_image(item, self.any_size) for item in batch]
            batch_texts = texts[start : start + self.batch_size]
            for number, (image, prediction) in enumerate(
                zip(loaded, self._predict(loaded, batch_texts), strict=True), start
            ):
                given = inputs[number]
                path = Path(given) if isinstance(given, (str, Path)) else None
                prediction['image'] = number if path is None else str(path)
                results['predictions'].append(prediction)
                if return_vis or out_dir is not None:
                    drawn = draw_predictions(
                        image,
                        *(
                            prediction[k]
                            for k in ('bboxes', 'texts', 'labels', 'scores')
                        ),
                    )
                    results['visualization'].append(drawn)
                    if out_dir is not None:
                        given_before[str(path)] += 1
                        folder = Path(out_dir) / 'vis'
                        _save(
                            drawn,
                            self._output_path(folder, path, given_before[str(path)]),
                        )
        return results

    def _output_path(self, folder: Path, path: Path | None, times: int) -> Path:
        """Output path that no other result of this inferencer has.

        Args:
            folder (Path): Output folder.
            path (Path, optional): Of the image; None if it has none.
            times (int): How often it was given in this call, with this one.
        """
        name = f'{next(self._arrays):06d}.png' if path is None else path.name
        place, owner = folder / name, f'{path or name}\0{times}'
        if self._owners.setdefault(place, owner) == owner:
            return place
        digest = hashlib.sha256(owner.encode('utf-8', 'surrogatepass')).hexdigest()
        return place.with_name(f'{place.stem}-{digest[:16]}{place.suffix}')

    def collate(
        self, images: Sequence[np.ndarray], texts: Sequence[Sequence[str]]
    ) -> dict:
        """A batch as a data loader gives it, of RGB images and their expressions."""
        samples = [
            self.pipeline(
                dict(
                    img=np.ascontiguousarray(image[..., ::-1]),
                    img_shape=image.shape[:2],
                    ori_shape=image.shape[:2],
                    text=list(expressions),
                )
            )
            for image, expressions in zip(images, texts, strict=True)
        ]
        return pseudo_collate(samples)

    @torch.inference_mode()
    def _predict(
        self, images: Sequence[np.ndarray], texts: Sequence[list[str]]
    ) -> list[dict[str, Any]]:
        """Predictions for a batch of RGB images."""
        data = self.model.data_preprocessor(self.collate(images, texts), False)
        data['inputs'] = data['inputs'].to(self.dtype)
        predictions = []
        for image, sample, expressions in zip(
            images, self.model(**data, mode='predict'), texts, strict=True
        ):
            shown, scores, labels = _shown(sample.pred_instances, self.score_thr)
            # The model predicts in its padded square, and may reach into the padding.
            boxes = HorizontalBoxes(shown, clone=False)
            boxes.clip_(image.shape[:2])
            predictions.append(
                dict(
                    bboxes=boxes.tensor.tolist(),
                    texts=list(expressions),
                    scores=scores.tolist() if self.scored else [None] * len(scores),
                    labels=labels.tolist(),
                )
            )
        return predictions


def _read_config(
    first: Path, config: str | Path | None, checkpoint: str | Path | None
) -> tuple[Config, dict[str, Any] | None]:
    """The config of a checkpoint or a config, and what the checkpoint holds."""
    if first.suffix in _CONFIGS:
        config = first
    else:
        checkpoint = first
    if config is not None and not Path(config).is_file():
        raise FileNotFoundError(f'{config}: no such file.')
    if checkpoint is not None:
        checkpoint = find_weights(checkpoint)
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    if config is None:
        assert checkpoint is not None
        return config_of_checkpoint(checkpoint, loaded), loaded
    return Config.fromfile(config), loaded


def _build_model(cfg: Config, loaded: dict[str, Any] | None, source: str | Path) -> Any:
    """The model of a config, with a checkpoint's weights.

    Raises:
        ValueError: The config in the checkpoint does not make a model, or the weights
            are not of it; it names the checkpoint.
    """
    if loaded is None:
        model = MODELS.build(cfg.model)
        if not isinstance(model, ServedCLIPVG):
            _start(model, source)
        return model
    state = loaded['state_dict']
    try:
        if not cfg.filename:
            # Before memory is taken for whatever the config in a checkpoint asks for.
            with torch.device('meta'):
                refuse_other_weights(state, MODELS.build(cfg.model))
        model = MODELS.build(cfg.model)
        if cfg.filename:
            refuse_other_weights(state, model)
        load_state_dict(model, state)
    except Exception as error:  # of strangers' arguments, each class has its own
        if cfg.filename:  # a config file of the user's, whose errors are MMEngine's
            raise
        text = ' '.join(str(error).split())
        raise ValueError(f'{source}: {type(error).__name__}: {text}') from error
    return model


def _start(model: Any, source: str | Path) -> None:
    """Give a model the weights that its training run would start from."""
    if getattr(model, 'needs_checkpoint', True):
        print_log(
            f'{source}: no checkpoint is given, so the model is not trained.',
            logger='current',
            level=logging.WARNING,
        )
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # MMEngine logs a line for each parameter
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


def _shown(instances: InstanceData, score_thr: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels from a score on, the best of an expression first."""
    scores, labels = instances.scores.float(), instances.labels
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    # Not `>=`: of a model that has diverged (NaN), predictions do not vanish.
    order = order[~(scores[order] < score_thr)]
    return instances.bboxes[order].float(), scores[order], labels[order]


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
