"""Five tiny data sets in the folders and layouts that users download."""

import json
import pickle

import torch
from PIL import Image

# Of each of six images, its split: RefCOCO tests on what the others train on.
REFER = {
    'refcoco/refs(unc).p': ['train', 'train', 'train', 'val', 'testA', 'testB'],
    'refcoco+/refs(unc).p': ['train', 'train', 'testB', 'val', 'testA', 'train'],
    'refcocog/refs(umd).p': ['train', 'val', 'test', 'train', 'train', 'train'],
}
WORDS = ['left one', 'red thing']
CORNERS = (4, 4, 24, 28)  # xyxy


def image(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (48, 40), (shade, 90, 30)).save(path)


def make_five_sets(root, corners=CORNERS):
    """The folders of docs/data.md with six images of each kind.

    Args:
        root (Path): Folder to fill.
        corners (Sequence[int]): The box of every label, xyxy. Defaults to one at the
            top left.

    Returns:
        Path: ``root``.
    """
    left, top, right, bottom = map(float, corners)
    box = [left, top, right - left, bottom - top]
    names = [f'COCO_train2014_{number:012d}.jpg' for number in range(6)]
    for number, name in enumerate(names):
        image(root / 'coco/train2014' / name, 30 * number)
    for place, splits in REFER.items():
        folder = root / 'coco' / place.partition('/')[0]
        folder.mkdir()
        images = [
            dict(id=i, file_name=name, height=40, width=48)
            for i, name in enumerate(names)
        ]
        annotations = [dict(id=i, image_id=i, bbox=box) for i in range(6)]
        (folder / 'instances.json').write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=[]))
        )
        refs = [
            dict(
                ref_id=i, ann_id=i, image_id=i, split=split, file_name=names[i],
                sentences=[
                    dict(sent_id=2 * i + k, sent=f'{words} {place}')
                    for k, words in enumerate(WORDS)
                ],
            )
            for i, split in enumerate(splits)
        ]  # fmt: skip
        (root / 'coco' / place).write_bytes(pickle.dumps(refs, 2))
    # Numbered images: 1.jpg of both is not the same.
    numbers = dict(
        referit=dict(train=[1, 2, 3], val=[4], test=[5, 6]),
        flickr=dict(train=[5, 6, 7], val=[1, 2], test=[3]),
    )
    for name, splits in numbers.items():
        set_name = dict(referit='referit', flickr='flickr30k')[name]
        images = dict(referit='images', flickr='flickr30k-images')[name]
        for split, of_split in splits.items():
            labels = []
            for i in of_split:
                image(root / set_name / images / f'{i}.jpg', 20 * i)
                label = (f'{i}.jpg', list(corners), f'thing {i}')
                if name == 'referit':
                    label = (f'{i}.jpg', f'{i}_1.pth', list(corners), f'thing {i}', [])
                labels.append(label)
            torch.save(labels, root / set_name / f'{name}_{split}.pth')
    return root
