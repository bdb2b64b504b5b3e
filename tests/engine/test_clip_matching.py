"""Zero-shot CLIP matching: candidates, scores, and entries of a manifest."""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from PIL import Image

from projects.clip_vg.engine.clip_matching import (
    AGREEMENT_PIPELINE,
    AgreementScorer,
    agreement_config,
    agreement_measurer,
    distinct_boxes,
    expected_iou,
)
from projects.clip_vg.engine.scoring import evaluation_view, score_sources
from projects.clip_vg.models import CropTextCLIP
from projects.clip_vg_core.data.readers import write_odvg
from projects.clip_vg_core.data.table_builder import TableBuilder

from ..helpers import ROOT
from ..helpers.configs import pool_config
from ..helpers.models import initialised


class Oracle(torch.nn.Module):
    """Knows, by the length of a text, which candidate it means."""

    def __init__(self, sure):
        super().__init__()
        self.sure = sure
        self.inputs = []

    def forward(self, images, boxes, texts):
        self.inputs += [
            (image.shape, candidates.clone(), list(expressions))
            for image, candidates, expressions in zip(images, boxes, texts, strict=True)
        ]
        return [
            self.sure
            * torch.nn.functional.one_hot(
                torch.tensor([len(text) % len(own) for text in expressions]), len(own)
            ).float()
            for own, expressions in zip(boxes, texts, strict=True)
        ]


@pytest.fixture
def view(shapes, sources):
    dataset = DATASETS.build(pool_config(shapes, sources))
    dataset.full_init()
    return evaluation_view(dataset, AGREEMENT_PIPELINE)


def score(view, model, folder, **more):
    score_sources(
        model,
        view,
        view.label_files,
        folder,
        dict(name='agreement'),
        AGREEMENT_PIPELINE,
        scorer=AgreementScorer(view),
        **more,
    )
    values = np.full(len(view), np.nan, np.float32)
    boxes = np.full((len(view), 4), np.nan, np.float32)
    for file in view.label_files:
        indices = view.indices_of(file)
        path = folder / f'agreement__{file.source}.npy'
        values[indices] = view.read_reliability(path)[indices]
        boxes[indices] = view.read_predicted_boxes(path)[indices]
    return values, boxes


def test_candidates_are_the_distinct_boxes_of_all_sources_of_an_image(view, tmp_path):
    model = Oracle(1000.0)
    values, predicted = score(view, model, tmp_path, batch_size=4)
    table = view.table
    assert np.isfinite(values).all()
    for label in range(len(table)):
        same = np.flatnonzero(table.image_index == table.image_index[label])
        kept = []
        for box in torch.from_numpy(table.boxes[same]):
            if not kept or bbox_overlaps(box[None], torch.stack(kept)).max() <= 0.5:
                kept.append(box)
        meant = kept[len(table.texts[label]) % len(kept)]
        np.testing.assert_allclose(predicted[label], meant)
        own = torch.from_numpy(table.boxes[label])[None]
        expected = bbox_overlaps(meant[None], own).item()
        assert values[label] == pytest.approx(expected, abs=1e-5)
    assert len(set(table.sources.tolist())) > 1
    shapes_seen = {tuple(shape[1:]) for shape, _, _ in model.inputs}
    assert shapes_seen == {tuple(size) for size in table.sizes[table.image_index]}


def test_batches_do_not_matter(view, tmp_path):
    options = agreement_config(Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py'))
    del options['type']
    clip = initialised(CropTextCLIP(**options))
    one, _ = score(view, clip, tmp_path / 'one', batch_size=1)
    many, _ = score(view, clip, tmp_path / 'many', batch_size=16)
    assert one == pytest.approx(many, abs=1e-4)
    assert 0 <= one.min() < one.max() <= 1


def test_an_interrupted_scoring_is_resumed(view, tmp_path):
    class Stopped(Oracle):
        def forward(self, images, boxes, texts):
            if len(self.inputs) >= 8:
                raise KeyboardInterrupt
            return super().forward(images, boxes, texts)

    whole, _ = score(view, Oracle(2.0), tmp_path / 'whole', batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        score(view, Stopped(2.0), tmp_path / 'cut', batch_size=4)
    rest = Oracle(2.0)
    again, _ = score(view, rest, tmp_path / 'cut', batch_size=4)
    np.testing.assert_array_equal(again, whole)
    scored = sum(len(texts) for _, _, texts in rest.inputs)
    assert scored < len(view)


def test_the_manifest_tells_other_weights_options_and_labels_apart(view):
    options = agreement_config(Config.fromfile(ROOT / 'configs/clip_vg_synthetic.py'))
    first = agreement_measurer(options, view.label_files)
    assert first == agreement_measurer(options, view.label_files)
    assert first != agreement_measurer(dict(options, context=2.0), view.label_files)
    assert first != agreement_measurer(options, view.label_files[:1])


def random_boxes(count, seed):
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=rng) * 60
    return torch.cat([corner, corner + 5 + 40 * torch.rand(count, 2, generator=rng)], 1)


@pytest.mark.parametrize('seed', range(5))
def test_distinct_boxes_as_one_by_one(seed):
    boxes = random_boxes(30, seed)
    kept = []
    for box in boxes:
        if not kept or bbox_overlaps(box[None], torch.stack(kept)).max() <= 0.5:
            kept.append(box)
    assert torch.equal(distinct_boxes(boxes), torch.stack(kept))


def test_equal_boxes_are_one_candidate():
    boxes = random_boxes(4, 0)
    assert torch.equal(distinct_boxes(boxes.repeat(3, 1)), distinct_boxes(boxes))
    assert torch.equal(distinct_boxes(boxes[:1]), boxes[:1])


def test_expected_iou_is_the_mean_over_draws():
    candidates, boxes = random_boxes(6, 1), random_boxes(3, 2)
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    expected = [
        sum(
            share * bbox_overlaps(box[None], candidate[None]).item()
            for share, candidate in zip(row.softmax(0), candidates, strict=True)
        )
        for row, box in zip(logits, boxes, strict=True)
    ]
    assert expected_iou(logits, candidates, boxes).tolist() == pytest.approx(
        [float(value) for value in expected]
    )


def test_labels_of_none_and_of_several_are_matched_by_the_nearest_box():
    candidates = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]])
    logits = torch.tensor([[0.0, 0, 0], [0, 0, math.log(2)], [5, 0, 0]])
    boxes = candidates[[0, 2, 1]]
    values = expected_iou(logits, candidates, boxes, [2, 1, 0])
    # A third each, two of which are targets; a half, a quarter and a quarter.
    assert values.tolist() == pytest.approx([2 / 3, 1 / 4, 0])


def test_labels_of_any_number_of_targets_are_scored(tmp_path):
    builder = TableBuilder(str, 'any')
    corners = [[0, 0, 10, 10], [20, 0, 30, 10]]
    for image, text, boxes in (
        ('a.jpg', 'both', corners),
        ('a.jpg', 'one', corners[:1]),  # the oracle means the other, by its length
        ('a.jpg', 'none', []),
        ('b.jpg', 'none', []),  # nothing to match with
    ):
        name = f'{image} {text}'
        builder.add_targets(image, boxes, text, name, 'train', 'x', (40, 60))
        Image.new('RGB', (60, 40)).save(tmp_path / image)
    write_odvg(builder.build('xyxy'), tmp_path / 'a.jsonl')
    config = dict(
        type='RefExpDataset', data_root=str(tmp_path), ann_file='a.jsonl', targets='any'
    )
    dataset = DATASETS.build(config)
    dataset.full_init()
    view = evaluation_view(dataset, AGREEMENT_PIPELINE)
    values, boxes = score(view, Oracle(1000.0), tmp_path / 'scores', batch_size=2)
    assert values.tolist() == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert boxes[:2].tolist() == [corners[0], corners[1]]
    assert np.isnan(boxes[3]).all()


def test_probabilities_of_one_give_the_iou_of_the_prediction():
    candidates = distinct_boxes(random_boxes(8, 3))
    boxes = candidates[:2] + 1.0
    logits = torch.full((2, len(candidates)), -100.0)
    logits[0, 0] = logits[1, 1] = 100.0
    predicted = bbox_overlaps(candidates[:2], boxes, is_aligned=True)
    assert torch.allclose(expected_iou(logits, candidates, boxes), predicted)
