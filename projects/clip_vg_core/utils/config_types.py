"""What configs that come with weights may name: a list, and no paths.

A registry holds every class of MMDetection and of what else is installed; some of them
read Python files or download what their arguments name. Of a config inside a checkpoint
or an exported folder, only the parts of a grounding detector are built.
"""

import ntpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ['DATASETS', 'MODEL_PARTS', 'TRANSFORMS', 'check_config']

MODEL_PARTS = frozenset(
    {
        *('CLIPVG', 'CLIPTextEncoder', 'CLIPVisualEncoder', 'VisionLanguageFusion'),
        *('GroundingBoxHead', 'GroundingConfidenceHead', 'GroundingDataPreprocessor'),
        *('L1Loss', 'SmoothL1Loss', 'IoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss'),
        *('CrossEntropyLoss', 'MSELoss'),
        *('HungarianAssigner', 'BBoxL1Cost', 'IoUCost', 'FocalLossCost'),
    }
)
TRANSFORMS = frozenset(
    {
        *('LoadImageFromFile', 'LoadGroundingImage', 'LoadAnnotations', 'PILResize'),
        *('ExpressionAwareChoice', 'ReferentCrop', 'PILColorJitter', 'TextAwareFlip'),
        *('Letterbox', 'PackGroundingInputs'),
    }
)
DATASETS = frozenset({'RefExpDataset'})
# Of datasets: files of labels and folders of images, which are read as such.
_DATA_PATHS = frozenset({'data_root', 'ann_file', 'split_file', 'data_prefix'})
# Free text, which may have a slash: prompt templates, and words of a prompt.
_TEXTS = frozenset({'template', 'init'})
# What fetches or loads by itself, whatever its value.
_LOADERS = frozenset({'init_cfg', 'backend_args', 'file_client_args', 'checkpoint'})
_OWN_WEIGHTS = 'projects/clip_vg/assets/tiny_clip.safetensors'
_DEPTH = 32
# Each layer takes memory before its weights can be compared with a checkpoint's.
_LAYERS = frozenset({'layers', 'num_layers'})
_MOST_LAYERS = 1000


def check_config(
    value: Any, allowed: Collection[str], source: str, way_out: str
) -> None:
    """Refuse a part of a config that names other types, or paths.

    Args:
        value (Any): Of plain values.
        allowed (Collection[str]): The types that may be built.
        source (str): What to call it in an error.
        way_out (str): What the error says to do.

    Raises:
        ValueError: A ``type`` is not among them; an argument is a path, or what loads
            something; or it is nested without end, or has layers without end.
    """
    _Check(frozenset(allowed), f'{source}: its config', way_out).look(value, '', 0)


@dataclass(frozen=True)
class _Check:
    """One walk through a config."""

    allowed: frozenset[str]
    what: str
    way_out: str

    def refuse(self, found: str) -> None:
        """Say what was found."""
        raise ValueError(f'{self.what} {found}. {self.way_out}')

    def look(self, value: Any, key: str, depth: int) -> None:
        """Look at the value of a key, and at all below."""
        if depth > _DEPTH:
            self.refuse(f'is nested more than {_DEPTH} deep')
        if isinstance(value, Mapping):
            self.look_into(value, key, depth)
        elif isinstance(value, (list, tuple, set)):
            for item in value:
                self.look(item, key, depth + 1)
        elif isinstance(value, str) and _is_path(value) and not self.may_be(value, key):
            self.refuse(f'has {key}={value[:80]!r}, a path, which is not followed')
        elif key in _LAYERS and isinstance(value, int) and value > _MOST_LAYERS:
            self.refuse(f'has {key}={value}; expected {_MOST_LAYERS} at most')

    def look_into(self, value: Mapping, key: str, depth: int) -> None:
        """Look at a dict: its type, and the names of its arguments."""
        kind = value.get('type')
        if 'type' in value and not (isinstance(kind, str) and kind in self.allowed):
            self.refuse(
                f'has the type {str(kind)[:80]!r}, which is no part of a grounding '
                f'detector that is built from there (those are {sorted(self.allowed)})'
            )
        for name, item in value.items():
            private = not isinstance(name, str) or name.startswith('_')
            if private or (name in _LOADERS and item is not None):
                self.refuse(f'has {str(name)[:80]!r}, which is not built from there')
            # Below data_prefix, the kinds of files.
            self.look(item, key if key in _DATA_PATHS else name, depth + 1)

    def may_be(self, path: str, key: str) -> bool:
        """Whether what looks like a path may stand at a key."""
        if key in _DATA_PATHS:
            return not DATASETS.isdisjoint(self.allowed)
        return key in _TEXTS or path == _OWN_WEIGHTS


def _is_path(text: str) -> bool:
    """Whether a text leads somewhere in a file system, here or on Windows."""
    return ntpath.split(text)[0] != '' or text.startswith('~') or text == '..'
