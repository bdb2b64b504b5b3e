"""Ask pictures: expressions in, boxes out."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
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
from PIL import Image

from projects.clip_vg_core.pseudo_labels.predictions import list_images
from projects.clip_vg_core.utils.image_files import load_image
from projects.clip_vg_core.visualization.boxes import draw_predictions

from ..checkpoints.checkpoint_config import config_of_checkpoint
from ..checkpoints.safe_loading import read_checkpoint
from ..checkpoints.strict_loading import refuse_other_weights
from ..checkpoints.work_dir import find_checkpoint, find_weights
from ..deployment.compiled import compile_for_inference
from ..deployment.served_clip_vg import ServedCLIPVG, served_config

__all__ = ['GroundingInferencer']

Picture = str | Path | np.ndarray | Image.Image
Expressions = str | Sequence[str]
_CONFIGS = ('.py', '.yaml', '.json')
# Transforms that need labels, or a file: the picture is given here.
_LOADING = {'LoadGroundingImage', 'LoadImageFromFile', 'LoadAnnotations'}


class GroundingInferencer:
    """Boxes for expressions, as MMDetection's ``DetInferencer`` gives detections.

    A picture is encoded once for all its expressions. Files are turned upright by
    their EXIF entry, as viewers do; boxes are in pixels of the upright picture. Several
    threads may call it at once.

    Args:
        checkpoint_or_config (str or Path): A config; or a checkpoint: a file, a work
            dir (its best checkpoint, else its last), or the folder of an exported
            detector (docs/serving.md).
        config (str or Path, optional): The config of a checkpoint. Defaults to None:
            the one that the checkpoint holds, of which only plain values are read.
        checkpoint (str or Path, optional): The weights for a config. Defaults to None:
            a config alone is a model without training, with a warning.
        device (str, optional): Defaults to None: a GPU where there is one.
        batch_size (int): Pictures encoded at once. Defaults to 8.
        dtype (torch.dtype): Of the weights; ``torch.bfloat16`` is fast on CPUs with
            AMX and moves boxes by about 0.002 of the picture. Defaults to float32.
        compile (bool): Whether PyTorch compiles the model at the first answer, which
            takes a minute or two and a C++ compiler, and makes the others faster; see
            :func:`compile_for_inference`. Defaults to False.
        any_size (bool): Whether files of more than 100 million pixels, and strips of
            which one side is over 100 times the other, are read as well. Defaults to
            False.
        served: ``backend``, ``precision``, ``threads`` of an exported detector, which
            runs on the CPU; see :class:`ServedCLIPVG`.

    Raises:
        FileNotFoundError: There is no such file, or no checkpoint in a work dir.
        ImportError: What runs an exported detector is not installed.
        RuntimeError: ``compile`` without a C++ compiler.
        ValueError: The checkpoint holds no config, or is of another model; or options
            of an exported detector are given for a checkpoint.

    Examples:
        >>> ask = GroundingInferencer('work_dirs/clip_vg_refcoco')
        >>> ask('street.jpg', ['left man', 'red car'])['predictions'][0]['bboxes']
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
        self._arrays = count()  # numbers of those that were drawn
        self._owners: dict[Path, str] = {}  # files, and the images drawn in them
        self.any_size = any_size
        if any_size:  # PIL's own limit is of the whole process
            Image.MAX_IMAGE_PIXELS = None
        self.model = _build_model(self.cfg, loaded, checkpoint or first)
        self.model.to(self.device, dtype).eval()
        if compile:
            compile_for_inference(self.model)
        steps = self.cfg.test_dataloader.dataset.pipeline
        self.pipeline = Compose([s for s in steps if s['type'] not in _LOADING])

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        expressions: Expressions | Sequence[Expressions],
        return_vis: bool = False,
        out_dir: str | Path | None = None,
    ) -> dict[str, list]:
        """Answer.

        Args:
            images (str, Path, ndarray, PIL.Image or a list of these): A file, a folder
                of pictures, an array (H, W, 3) in BGR as OpenCV reads it, or a picture
                of PIL.
            expressions (str or list): For one picture one expression or several; for
                several pictures one expression for all, or a list with an expression
                or a list of them for each.
            return_vis (bool): Whether ``visualization`` has the pictures with their
                answers, RGB. Defaults to False.
            out_dir (str or Path, optional): Where these are written to as
                ``vis/<name>``, or with a hash where an image of another folder has that
                name; arrays are numbered. A file that is given again in a later call
                replaces its picture. Defaults to None.

        Returns:
            dict: ``predictions``, for each picture a dict of ``bboxes`` (a list of
            xyxy in pixels of the picture, cut at its edges, one for each expression,
            in order),
            ``texts``, ``scores`` and ``image`` (the file, or its number); and
            ``visualization``.

        Raises:
            FileNotFoundError: There is no such picture.
            ValueError: A picture cannot be read, an expression is empty, or there are
                not as many expressions as pictures.
        """
        single = _is_picture(images)
        pictures: list[Any] = [images] if single else _several(images)
        texts = self._expressions(expressions, len(pictures), single)
        found: dict[str, list] = dict(predictions=[], visualization=[])
        given_before: Counter[str] = Counter()
        for start in range(0, len(pictures), self.batch_size):
            batch = pictures[start : start + self.batch_size]
            loaded = [load_image(picture, self.any_size) for picture in batch]
            asked = texts[start : start + self.batch_size]
            for number, (image, answer) in enumerate(
                zip(loaded, self._answer(loaded, asked), strict=True), start
            ):
                given = pictures[number]
                path = Path(given) if isinstance(given, (str, Path)) else None
                answer['image'] = number if path is None else str(path)
                found['predictions'].append(answer)
                if return_vis or out_dir is not None:
                    drawn = draw_predictions(image, answer['bboxes'], answer['texts'])
                    found['visualization'].append(drawn)
                    if out_dir is not None:
                        given_before[str(path)] += 1
                        folder = Path(out_dir) / 'vis'
                        _save(drawn, self._place(folder, path, given_before[str(path)]))
        return found

    def _place(self, folder: Path, path: Path | None, times: int) -> Path:
        """A file that no other result of this inferencer has.

        Args:
            folder (Path): Where it lies.
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
        """A batch as a data loader gives it, of RGB pictures and their expressions."""
        samples = [
            self.pipeline(
                dict(
                    img=np.ascontiguousarray(image[..., ::-1]),
                    img_shape=image.shape[:2],
                    ori_shape=image.shape[:2],
                    text=list(asked),
                )
            )
            for image, asked in zip(images, texts, strict=True)
        ]
        return pseudo_collate(samples)

    @torch.inference_mode()
    def _answer(
        self, images: Sequence[np.ndarray], texts: Sequence[list[str]]
    ) -> Iterator[dict[str, Any]]:
        """Answers for a batch of RGB pictures."""
        data = self.model.data_preprocessor(self.collate(images, texts), False)
        data['inputs'] = data['inputs'].to(self.dtype)
        for image, sample, asked in zip(
            images, self.model(**data, mode='predict'), texts, strict=True
        ):
            answers = sample.pred_instances
            # The model answers in its padded square, and may reach into the padding.
            boxes = HorizontalBoxes(answers.bboxes.float(), clone=False)
            boxes.clip_(image.shape[:2])
            yield dict(
                bboxes=boxes.tensor.tolist(),
                texts=list(asked),
                scores=answers.scores.float().tolist(),
            )

    def _expressions(
        self, expressions: Any, count: int, single: bool
    ) -> list[list[str]]:
        """A list of expressions for each of the pictures."""
        if isinstance(expressions, str):
            asked = [[expressions]] * count
        elif single:
            asked = [list(expressions)]
        elif len(expressions) != count:
            raise ValueError(
                f'{count} pictures and {len(expressions)} lists of expressions: give '
                'an expression, or a list of them, for each picture.'
            )
        else:
            asked = [[e] if isinstance(e, str) else list(e) for e in expressions]
        for number, texts in enumerate(asked):
            if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ValueError(
                    f'picture {number + 1}: the expressions are {texts!r}; expected at '
                    'least one, none of them empty.'
                )
        return asked


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
    """Give a model the weights that its training would begin with."""
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


def _is_picture(images: Any) -> bool:
    """Whether one picture is given, and not a list or a folder of them."""
    if isinstance(images, (str, Path)):
        return not Path(images).is_dir()
    return isinstance(images, (np.ndarray, Image.Image))


def _several(images: Any) -> list[Picture]:
    """The pictures of a list or a folder."""
    if isinstance(images, (str, Path)):
        return [Path(images) / name for name in list_images(Path(images))]
    return list(images)


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
