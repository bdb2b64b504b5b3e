"""Texts that get their boxes by ``assign``: how many are right, and what they teach."""

import json
import logging
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from curriculum_training import EPOCHS, run_training
from label_truth import verdict_of
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from noisy_sources import make_noisy_sources

from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.detections import read_shapes, simulate_predictions
from projects.clip_vg.synthetic.scenes import LARGE_SIDES
from projects.clip_vg_core.data.readers import odvg_line
from projects.clip_vg_core.pseudo_labels.assign import (
    AssignOptions,
    Score,
    assign_labels,
)
from projects.clip_vg_core.pseudo_labels.detection import (
    Box,
    GivenText,
    Scene,
    image_rng,
    iou,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles, read_scenes
from projects.clip_vg_core.pseudo_labels.template import template_labels
from projects.clip_vg_core.pseudo_labels.vocabulary import Vocabulary
from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.image_files import as_rgb, open_image
from projects.clip_vg_core.utils.safe_pickle import load_pickle

__all__ = ['measure_assignment', 'measure_training']

KINDS = ('attribute', 'place', 'size', 'relation')
_OTHER_IMAGES = 1000  # added to the seed, as in curriculum_trials
_ARMS = ('template', 'assign by words', 'assign by words and CLIP')
_TRAINED = ('template', 'assign by words and CLIP')
# As of a training run of the curriculum's benchmark.
_START_STEPS, _START_IMAGES = 2700, dict(train=1200, val=200, test=400)


class Expression(NamedTuple):
    """A text of a synthetic image, its kind, split and the box that it means."""

    text: str
    kind: str
    split: str
    box: Box


def clip_score(cfg: Config, folder: Path) -> Score:
    """Zero-shot matching of crops by the CLIP of a config."""
    clip = MODELS.build(cfg.model.clip)
    clip.init_weights()

    def score(scene: Scene, texts: Sequence[str], boxes: np.ndarray) -> np.ndarray:
        with open_image(folder / scene.file_name) as file:
            image = as_rgb(file, False)
        (logits,) = clip([image], [torch.from_numpy(boxes)], [list(texts)])
        return logits.softmax(1).double().numpy()

    return score


def read_expressions(root: Path) -> dict[str, list[Expression]]:
    """All expressions of a synthetic data set, by image."""
    instances = json.loads((root / 'shapes' / 'instances.json').read_text())
    boxes = {entry['id']: entry['bbox'] for entry in instances['annotations']}
    by_image: dict[str, list[Expression]] = {
        image['file_name']: [] for image in instances['images']
    }
    for ref in load_pickle(root / 'shapes' / 'refs(synthetic).p'):
        left, top, width, height = boxes[ref['ann_id']]
        box = left, top, left + width, top + height
        text = ref['sentences'][0]['sent']
        expression = Expression(text, ref['kind'], ref['split'], box)
        by_image[ref['file_name']].append(expression)
    return by_image


def _given(scene: Scene, expressions: Sequence[Expression]) -> Scene:
    return replace(scene, texts=tuple(GivenText(item.text) for item in expressions))


def measure_assignment(
    cfg: Config, root: Path, seed: int, images: int
) -> dict[str, float]:
    """Share of right boxes (IoU of 0.5) by detections, what decides, and kind."""
    make_synthetic(root, dict(test=images), seed=seed)
    instances = root / 'shapes' / 'instances.json'
    simulated = simulate_predictions(instances, root / 'simulated', seed=seed)
    expressions, vocabulary = read_expressions(root), Vocabulary.load()
    score, rows = clip_score(cfg, root / 'images'), {}
    for of_what, inputs in (
        ('true boxes', InputFiles(instances)),
        ('detections', InputFiles(simulated / 'detections.json', instances)),
    ):
        scenes, _ = read_scenes(inputs)
        for by_what, scored in (('words', None), ('words and CLIP', score)):
            hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
            for scene in scenes:
                own = expressions[scene.file_name]
                options = AssignOptions(min_area=0.0)
                labels = assign_labels(_given(scene, own), vocabulary, options, scored)
                assigned = {label.text: label.box for label in labels}
                for item in own:
                    box = assigned.get(item.text)
                    hits[item.kind].append(bool(box) and iou(box, item.box) >= 0.5)
            for kind, of_kind in hits.items():
                rows[f'{of_what}, {by_what}, {kind}'] = statistics.mean(of_kind)
    return rows


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as partial:
        partial.write_text(''.join(map(odvg_line, rows)))


def _row(
    scene: Scene, text: str, box: Box, source: str, split: str, number: int
) -> dict:
    return dict(
        image=scene.file_name,
        height=scene.height,
        width=scene.width,
        text=text,
        bbox=[round(edge, 2) for edge in box],
        sample_id=f'{source}_{scene.image_id}_{number}',
        split=split,
        source=source,
    )


def make_sources(
    cfg: Config, root: Path, images: Mapping[str, int], seed: int
) -> dict[str, float]:
    """Labels of each arm, as many of an image for all, beside ``val`` and ``test``.

    Args:
        cfg (Config): With the CLIP.
        root (Path): Gets ``pictures``, simulated detections and ``<arm>.jsonl``.
        images (Mapping[str, int]): Images of each split.
        seed (int): Decides everything.

    Returns:
        dict[str, float]: Labels of an arm, and the share of right ones of each.
    """
    toy = make_synthetic(root / 'pictures', images, seed, sides=LARGE_SIDES)
    instances = toy / 'shapes' / 'instances.json'
    expressions, vocabulary = read_expressions(toy), Vocabulary.load()
    simulated = simulate_predictions(instances, root / 'simulated', seed=seed)
    inputs = InputFiles(simulated / 'detections.json', instances)
    scenes, _ = read_scenes(inputs)
    objects = {image['file_name']: shapes for image, shapes in read_shapes(instances)}
    score = clip_score(cfg, toy / 'images')
    rows: dict[str, list[dict]] = {arm: [] for arm in (*_ARMS, 'val', 'test')}
    right: Counter = Counter()
    for scene in scenes:
        own = expressions[scene.file_name]
        if own and own[0].split != 'train':
            for number, item in enumerate(own):
                of = item.kind, item.split, number
                rows[item.split].append(_row(scene, item.text, item.box, *of))
            continue
        truth = {item.text: item.box for item in own}
        given = _given(scene, own)
        by_arm = {
            'template': template_labels(scene, vocabulary),
            'assign by words': assign_labels(given, vocabulary),
            'assign by words and CLIP': assign_labels(given, vocabulary, score=score),
        }
        rng = image_rng(seed, scene.image_id)
        count = min(map(len, by_arm.values()))
        chosen = np.sort(rng.permutation(len(by_arm['assign by words']))[:count])
        drawn = np.sort(rng.permutation(len(by_arm['template']))[:count])
        for arm, labels in by_arm.items():
            for number in drawn if arm == 'template' else chosen:
                label = labels[number]
                rows[arm].append(
                    _row(scene, label.text, label.box, arm, 'train', int(number))
                )
                if arm == 'template':
                    size = scene.width, scene.height
                    shapes = objects[scene.file_name]
                    verdict = verdict_of(label.text, label.box, size, shapes)
                    right[arm] += verdict == 'right'
                else:
                    right[arm] += iou(label.box, truth[label.text]) >= 0.5
    for name, lines in rows.items():
        _write(root / f'{name}.jsonl', lines)
    count = len(rows['template'])
    return {'labels': count, **{arm: right[arm] / count for arm in _ARMS}}


def _precompute(root: Path, images: Mapping[str, int]) -> None:
    """The tokens of the frozen tower for all images."""
    first, firsts = 1, {}
    for split, count in images.items():
        firsts[split], first = first, first + count
    np.savez(root / 'firsts.npz', **firsts)
    run_training(
        dict(root=str(root), work_dir=str(root / 'tokens'), task='precompute_tokens')
    )


def _train(root: Path, pool: str, **spec: Any) -> dict[str, Any]:
    """Train on a file of labels, unless that is done, and test."""
    work_dir = str(root / 'trials' / pool.replace(' ', '_'))
    result = run_training(
        dict(root=str(root), work_dir=work_dir, pool=[pool], **spec),
    )
    # Which run_training switches off, or begins anew.
    logging.disable(logging.NOTSET)
    MMLogger.get_instance('mmengine', log_level='ERROR')
    logging.info('%s: %s', work_dir, result['test'])
    return result


def measure_training(
    cfg: Config, root: Path, start: Path, seed: int, images: int, steps: int
) -> dict[str, float]:
    """Test accuracy of a detector after training on each arm, and its labels.

    All training runs begin with one detector that knows the names of shapes from clean
    labels of other images, as in the curriculum's benchmark; what is finished is not
    run again.

    Args:
        cfg (Config): With the CLIP.
        root (Path): Folder of the seed.
        start (Path): Folder of that detector, for all seeds.
        seed (int): Of images, errors and training runs.
        images (int): To train on.
        steps (int): Of one training run.

    Returns:
        dict[str, float]: The number of labels of an arm; for each arm the share of
        right ones, and accuracy on all texts and on each kind.
    """
    make_noisy_sources(start, _START_IMAGES, {'names': {}}, _OTHER_IMAGES)
    _precompute(start, _START_IMAGES)
    _train(start, 'names', seed=0, steps=_START_STEPS)
    counts = dict(train=images, val=20, test=200)  # val is not looked at
    sources = make_sources(cfg, root, counts, seed)
    _precompute(root, counts)
    rows: dict[str, float] = {'labels': sources.pop('labels')}
    rows.update((f'{arm}, right labels', share) for arm, share in sources.items())
    load_from = str(start / 'trials' / 'names' / f'epoch_{EPOCHS}.pth')
    for arm in _TRAINED:
        test = _train(root, arm, seed=seed, steps=steps, load_from=load_from)['test']
        rows[f'{arm}, accuracy'] = _mean(root, test)
        rows.update((f'{arm}, accuracy on {kind}', test[kind]) for kind in KINDS)
    return rows


def _mean(root: Path, accuracy: Mapping[str, float]) -> float:
    """Accuracy on all expressions of the test split, from that on each kind."""
    with (root / 'test.jsonl').open(encoding='utf-8') as file:
        counted = Counter(json.loads(line)['source'] for line in file)
    return sum(accuracy[k] * n for k, n in counted.items()) / sum(counted.values())
