"""What of other packages is private and used here: a list, and that it is there.

A new one fails here. Take the public way; else add it, and bound the version in
setup.py.
"""

import ast

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from .helpers import ROOT
from .helpers.configs import runner_config

FOLDERS = ('projects', 'tools', 'demo')
# MMEngine < 0.11.
RUNNER = {
    # As MMEngine's own EMAHook tells a resumed run from one that begins with weights.
    '_resume',
    # Loaders are built before the model: DataFirstRunner.
    '_randomness_cfg',
    *(f'_{split}_dataloader' for split in ('train', 'val', 'test')),
}
# Overridden, since a table of columns is no list of dicts.
DATASET = {'_join_prefix', '_get_unserialized_subset'}
OTHERS = {
    # Of namedtuples: public, whatever their names look like.
    *('_fields', '_replace'),
    # Of open_clip, which has no public way to build one tower alone.
    *('_build_vision_tower', '_build_text_tower', '_embeds', '_has_transformers'),
    # Of PyTorch: what a checkpoint names, the strict loading of a module, and how often
    # a tensor was changed in place.
    *('_utils', '_rebuild_tensor', '_load_from_state_dict', '_version'),
    # Of MMDetection's visualizer, whose public method takes no sample without scores.
    '_draw_instances',
    # Of ONNX, whose large tensors are moved into a file of their own.
    '_get_all_tensors',
    # Of Python: the names that old pickles have for what moved; and what ends a process
    # without its clean-up, which is documented.
    *('_compat_pickle', '_exit'),
}


def own_names(trees):
    """Names that are defined here, also by ``setattr`` and ``__slots__``."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def is_private(name):
    return name.startswith('_') and not name.startswith('__') and name != '_'


def used_names(tree):
    """Private attributes, also those of ``super()``, and private imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, ast.unparse(node.value) == 'super()'
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [*node.module.split('.'), *(alias.name for alias in node.names)]
            yield from ((name, True) for name in names if is_private(name))


def test_private_names_of_others_are_listed():
    files = [path for name in FOLDERS for path in (ROOT / name).rglob('*.py')]
    trees = {path: ast.parse(path.read_text()) for path in files}
    own = set(own_names(trees.values()))
    found = {
        (name, str(path.relative_to(ROOT)))
        for path, tree in trees.items()
        for name, is_foreign in used_names(tree)
        if is_foreign or name not in own
    }
    listed = RUNNER | DATASET | OTHERS
    assert not {(name, path) for name, path in found if name not in listed}


def test_mmengine_has_what_is_relied_upon(shapes, sources, tmp_path):
    runner = Runner.from_cfg(runner_config(shapes, sources, tmp_path, resume=True))
    assert set(vars(runner)) >= RUNNER
    assert runner._resume is True
    assert set(vars(BaseDataset)) >= DATASET
