"""Description of an exported folder: ``deployment.json``."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from ..data.readers.common import entry_of, read_json, required
from ..utils.atomic import file_sha256, replacing
from ..utils.config_types import MODEL_PARTS, TRANSFORMS, check_config

__all__ = [
    'GRAPHS',
    'NAME',
    'Deployment',
    'graph_name',
    'read_deployment',
    'write_deployment',
]

NAME = 'deployment.json'
# The two graphs of each kind of weights.
GRAPHS = ('image', 'grounding')


@dataclass
class Deployment:
    """All that is needed for inference, beside the graphs.

    Args:
        image_size (list[int]): Height and width of the padded input.
        grid_size (list[int]): Rows and columns of patches.
        embed_dims (int): Width of the fusion.
        scored (bool): Whether boxes have scores, of a confidence head.
        text (dict): What tokenizes expressions, see :func:`load_tokenizer`.
        data_preprocessor (dict): Config of the preprocessor.
        pipeline (list[dict]): Configs of the test transforms.
        checkpoint (dict): ``file`` and ``sha256`` of what was exported.
        versions (dict): Of the packages that exported.
        graphs (dict): For 'float' and 'int8' the sha256 of each file by its name.
        num_queries (int): Boxes of each expression. Defaults to 1.
        score_thr (float): Least score of a prediction that is shown. Defaults to 0.
        class_token (bool): Whether a class token is before the patches. Defaults to
            True.
    """

    image_size: list[int]
    grid_size: list[int]
    embed_dims: int
    scored: bool
    text: dict[str, Any]
    data_preprocessor: dict[str, Any]
    pipeline: list[dict[str, Any]]
    checkpoint: dict[str, str]
    versions: dict[str, str]
    graphs: dict[str, dict[str, str]] = field(default_factory=dict)
    num_queries: int = 1
    score_thr: float = 0.0
    class_token: bool = True

    def add_graphs(self, kind: str, folder: Path) -> None:
        """Take the graphs of a kind of weights in, as they lie in the folder."""
        names = [graph_name(graph, kind) for graph in GRAPHS]
        self.graphs[kind] = {name: file_sha256(folder / name) for name in names}

    def graph_files(self, kind: str, folder: Path) -> list[Path]:
        """The graphs of a kind of weights, in the order of ``GRAPHS``.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The folder has no such weights, or a file is another one.
        """
        if kind not in self.graphs:
            raise ValueError(
                f'{folder} has no {kind} weights, only {sorted(self.graphs)}: export '
                'with --int8.'
            )
        files = [folder / graph_name(graph, kind) for graph in GRAPHS]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f'{file}: no such file, but {NAME} names it.')
            sha256, actual = self.graphs[kind].get(file.name), file_sha256(file)
            if actual != sha256:
                raise ValueError(
                    f'{file} is not the file that {NAME} was written with (sha256 '
                    f'{actual[:16]}... instead of {str(sha256)[:16]}...): it is '
                    'truncated, or of another export. Export again.'
                )
        return files


def graph_name(graph: str, kind: str) -> str:
    """The file name of a graph."""
    return f'{graph}.onnx' if kind == 'float' else f'{graph}_{kind}.onnx'


def write_deployment(deployment: Deployment, folder: Path) -> None:
    """Write the file, whole or not at all."""
    with replacing(folder / NAME) as partial:
        partial.write_text(json.dumps(asdict(deployment), indent=1) + '\n')


def read_deployment(folder: Path) -> Deployment:
    """Read the file of an exported folder.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is no JSON, or an entry is missing or of another type.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f'{folder} is no exported detector: it has no {NAME}. Make one with '
            'tools/deployment/export.py, or name a checkpoint.'
        )
    entry = entry_of(read_json(path), dict, str(path), 'a JSON object')
    values = {}
    # Which exported folders of older versions do not have.
    optional = {f.name for f in fields(Deployment) if f.default is not MISSING}
    for name, hint in get_type_hints(Deployment).items():
        if name in optional and name not in entry:
            continue
        kind = get_origin(hint) or hint
        value = required(entry, name, str(path))
        values[name] = entry_of(value, kind, f'{path}, {name!r}', f'a {kind.__name__}')
    # As of a checkpoint: an exported folder may come from a stranger.
    for name, allowed in (('pipeline', TRANSFORMS), ('data_preprocessor', MODEL_PARTS)):
        check_config(values[name], allowed, str(path), 'Export again.')
    return Deployment(**values)
