"""From twenty images and a CSV to a tested model, by the page's own commands."""

import csv
import json
import re
import shlex
import shutil

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.utils.data_root import replace_data_root

from .helpers import ROOT
from .helpers.commands import tool
from .helpers.configs import ARCH
from .helpers.pages import blocks
from .helpers.work_dirs import metrics

# In the place of CLIP ViT-B/16, for images of the same size.
TINY = f"""
_base_ = './clip_vg_vit-b16_full.py'
arch = {ARCH!r}
model = dict(
    visual_encoder=dict(
        arch=dict(_delete_=True, **arch), pretrained=None, image_size=224,
        extract_layers=(0, 1)),
    text_encoder=dict(arch=dict(_delete_=True, **arch), pretrained=None),
    fusion=dict(num_layers=1, num_heads=4, feedforward_channels=32))
"""


@pytest.fixture
def workplace(shapes, tmp_path):
    """A folder with the repository's parts and 20 labelled images."""
    for name in ('projects', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    models = tmp_path / 'configs/_base_/models'
    (models / 'clip_vg_vit-b16.py').rename(models / 'clip_vg_vit-b16_full.py')
    (models / 'clip_vg_vit-b16.py').write_text(TINY)
    # Two epochs in the place of 20: nothing here depends on how much is learnt.
    base = tmp_path / 'configs/_base_/clip_vg_own_labels.py'
    text = base.read_text()
    for long in ('max_epochs = 20', 'val_interval=5', 'checkpoint=dict(interval=5)'):
        assert long in text
        text = text.replace(long, re.sub(r'\d+', '2', long))
    base.write_text(text)
    labels = read_annotations(
        shapes / 'shapes/instances.json',
        shapes / 'shapes/refs(synthetic).p',
        splits=['train'],
    )
    names = sorted({label['image'] for label in labels})[:20]
    images = tmp_path / 'data/mine/images'
    images.mkdir(parents=True)
    for name in names:
        shutil.copy(shapes / 'images' / name, images)
    with (tmp_path / 'data/mine/labels.csv').open('w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['image', 'expression', 'x1', 'y1', 'x2', 'y2'])
        for label in labels:
            if label['image'] in names:
                rows.writerow([label['image'], label['text'], *label['bbox']])
    return tmp_path


def test_the_page_leads_from_a_csv_to_a_tested_model(workplace):
    page = [b for b in blocks('bash') if b.place.startswith('docs/own_labels.md')]
    lines = [line for block in page for line in block.text.splitlines()]
    assert len(lines) <= 4
    printed = []
    for line in lines:
        python, *command = shlex.split(line)
        assert python == 'python'
        printed.append(tool(*command, cwd=workplace).stdout)
    assert re.search(r'all +\d+ +20 ', printed[0])  # labels and images
    assert printed[0].rstrip().endswith(f'python {lines[1].removeprefix("python ")}')
    assert (workplace / 'report.html').stat().st_size
    work_dir = workplace / 'work_dirs/mine'
    assert (work_dir / 'epoch_2.pth').stat().st_size
    scores = metrics(work_dir)
    assert 0 <= scores['grounding/acc_0.5'] <= scores['grounding/acc_0.25'] <= 1


def test_the_template_is_short_and_holds_images_out(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    text = (ROOT / 'configs/my_data.py').read_text()
    code = [line for line in text.splitlines()[1:] if line.strip()]
    assert len(code) <= 10 and text.count('data_root') == 1
    cfg = Config.fromfile('configs/my_data.py')
    parts = {
        key: DATASETS.build(cfg[f'{key}_dataloader'].dataset)
        for key in ('train', 'val', 'test')
    }
    names = {
        key: {part.table.images[i] for i in part.table.image_index}
        for key, part in parts.items()
    }
    assert names['train'] and names['val'] == names['test']
    assert not names['train'] & names['val']
    assert len(names['train'] | names['val']) == 20


def test_a_file_with_splits_is_read_as_the_page_says(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    file = workplace / 'data/mine/labels.csv'
    header, *rows = file.read_text().splitlines()
    splits = [('train', 'train', 'val', 'test')[i % 4] for i in range(len(rows))]
    file.write_text(
        '\n'.join(
            [
                f'{header},split',
                *(f'{r},{s}' for r, s in zip(rows, splits, strict=True)),
            ]
        )
    )
    (block,) = (
        b
        for b in blocks('python')
        if b.place.startswith('docs/own_labels.md') and "split='val'" in b.text
    )
    (workplace / 'mine.py').write_text(block.text)
    cfg = Config.fromfile('mine.py')
    # As --data-root does: the data in another folder.
    (workplace / 'data/mine').rename(workplace / 'elsewhere')
    replace_data_root(cfg, 'elsewhere')
    for split in ('train', 'val', 'test'):
        table = DATASETS.build(cfg[f'{split}_dataloader'].dataset).table
        assert len(table) == splits.count(split)
        assert {label['split'] for label in table} == {split}


def test_parts_of_so_few_images_that_one_is_empty_are_named(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    lines = (workplace / 'data/mine/labels.csv').read_text().splitlines()
    (workplace / 'data/mine/labels.csv').write_text('\n'.join(lines[:2]))
    cfg = Config.fromfile('configs/my_data.py')
    built, refused = [], []
    for key in ('train', 'val'):
        try:
            built.append(DATASETS.build(cfg[f'{key}_dataloader'].dataset))
        except ValueError as error:
            refused.append(str(error))
    assert len(built) == len(refused) == 1
    assert "'number': 5" in refused[0] and '1 images' in refused[0]
    assert 'labels.csv' in refused[0]


@pytest.mark.parametrize('export', ['coco', 'cvat', 'label_studio'])
def test_exports_of_labelling_tools_give_the_labels_of_the_csv(export, tmp_path):
    """Two boxes of one image in every export and in a CSV."""
    Image.new('RGB', (200, 100)).save(tmp_path / '1.jpg')
    boxes = {'left one': [20, 10, 60, 50], 'the other': [100, 20, 150, 80]}
    (tmp_path / 'labels.csv').write_text(
        'image,expression,x1,y1,x2,y2\n'
        + ''.join(
            f'1.jpg,{text},{",".join(map(str, box))}\n' for text, box in boxes.items()
        )
    )
    names = dict(coco='x.json', cvat='annotations.xml', label_studio='project.json')
    (tmp_path / names[export]).write_text(EXPORTS[export](boxes))
    first, second = (
        DATASETS.build(
            dict(
                type='RefExpDataset',
                data_root=str(tmp_path),
                ann_file=file,
                check_images='error',
            )
        )
        for file in ('labels.csv', names[export])
    )
    assert len(first) == len(second) == 2
    for i in range(2):
        for key in ('img_path', 'text', 'instances'):
            assert first.get_data_info(i)[key] == second.get_data_info(i)[key]


def coco(boxes):
    annotations = [
        dict(id=i, image_id=1, bbox=[a, b, c - a, d - b], caption=text)
        for i, (text, (a, b, c, d)) in enumerate(boxes.items())
    ]
    images = [dict(id=1, file_name='1.jpg', width=200, height=100)]
    return json.dumps(dict(images=images, annotations=annotations))


def cvat(boxes):
    rows = ''.join(
        f'<box label="thing" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}">'
        f'<attribute name="expression">{text}</attribute></box>'
        for text, (a, b, c, d) in boxes.items()
    )
    image = f'<image id="0" name="1.jpg" width="200" height="100">{rows}</image>'
    return f'<annotations><version>1.1</version>{image}</annotations>'


def label_studio(boxes):
    results = []
    for text, (a, b, c, d) in boxes.items():
        shared = dict(id=text, original_width=200, original_height=100)
        place = dict(x=a / 2, y=b, width=(c - a) / 2, height=d - b, rotation=0)
        results += [
            dict(shared, type='rectanglelabels', from_name='label', value=place),
            dict(
                shared,
                type='textarea',
                from_name='expression',
                value=dict(place, text=[text]),
            ),
        ]
    task = dict(
        id=1,
        data=dict(image='/data/upload/1/0a1b2c3d-1.jpg'),
        annotations=[dict(id=1, result=results)],
    )
    return json.dumps([task])


EXPORTS = dict(coco=coco, cvat=cvat, label_studio=label_studio)
