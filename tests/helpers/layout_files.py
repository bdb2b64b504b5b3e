"""Tiny annotation files in the exact schema of every layout that is read.

All texts, numbers and names of images are invented; the schemas are those of public
files and of the code that loads them.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import torch

# Image (name, width, height), xyxy target boxes in pixels, expression.
FIRST = ('COCO_train2014_000000000011.jpg', [[10, 20, 40, 60]], 'left man')
SECOND = ('COCO_train2014_000000000012.jpg', [[300, 200, 600, 430]], 'red "cup"; big')
SIZES = {FIRST[0]: (640, 480), SECOND[0]: (640, 480)}
LABELS = [FIRST, SECOND]
NONE = (FIRST[0], [], 'green elephant')
SEVERAL = (SECOND[0], [[300, 200, 600, 430], [5, 5, 50, 80]], 'both cups')
WIDTH, HEIGHT = 640, 480


class Fixture(NamedTuple):
    """Where a layout was written and what must come out.

    Args:
        files (dict): Arguments of ``read_annotations``.
        labels (list): (image, target boxes, expression) in order.
    """

    files: dict
    labels: list


WRITERS: dict[str, Callable[[Path], Fixture]] = {}


def layout(write: Callable[[Path], Any]) -> Callable:
    """Register a writer under its name."""
    WRITERS[write.__name__] = write
    return write


def xywh(box: list) -> list:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def to_json(path: Path, value: Any) -> dict:
    path.write_text(json.dumps(value))
    return dict(ann_file=path)


def to_lines(path: Path, rows: list) -> dict:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return dict(ann_file=path)


def to_torch(path: Path, rows: list) -> dict:
    torch.save(rows, path)
    return dict(ann_file=path)


def to_parquet(path: Path, rows: list) -> dict:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return dict(ann_file=path)


def singles(labels: list = LABELS) -> list:
    """(image, box, text) of labels with one target."""
    return [(image, boxes[0], text) for image, boxes, text in labels]


def refer_files(folder: Path, refs: list, name: str, instances: dict) -> dict:
    (folder / 'instances.json').write_text(json.dumps(instances))
    path = folder / name
    if path.suffix == '.json':
        path.write_text(json.dumps(refs))
    else:
        path.write_bytes(pickle.dumps(refs, protocol=2))
    return dict(ann_file=folder / 'instances.json', split_file=path)


def refer_content(labels: list) -> tuple[list, dict]:
    images = [
        dict(id=11 + i, file_name=name, height=HEIGHT, width=WIDTH)
        for i, name in enumerate(SIZES)
    ]
    annotations, refs = [], []
    for index, (image, boxes, text) in enumerate(labels):
        ids = []
        for box in boxes:
            ids.append(100 + len(annotations))
            annotations.append(
                dict(id=ids[-1], image_id=0, bbox=xywh(box), category_id=1)
            )
        refs.append(
            dict(
                ref_id=index,
                ann_id=ids[0] if ids else -1,
                image_id=11 + list(SIZES).index(image),
                category_id=1,
                split='train' if index == 0 else 'val',
                file_name=f'{image[:-4]}_{index}.jpg',
                sentences=[
                    dict(sent_id=index, sent=text, raw=text, tokens=text.split())
                ],
                sent_ids=[index],
            )
        )
    return refs, dict(images=images, annotations=annotations, categories=[])


@layout
def refer_pickle(folder: Path) -> Fixture:
    refs, instances = refer_content(LABELS)
    return Fixture(refer_files(folder, refs, 'refs(unc).p', instances), LABELS)


@layout
def refer_json(folder: Path) -> Fixture:
    refs, instances = refer_content(LABELS)
    return Fixture(refer_files(folder, refs, 'refs(unc).json', instances), LABELS)


def grefs(folder: Path, name: str) -> Fixture:
    labels = [FIRST, NONE, SEVERAL]
    refs, instances = refer_content(labels)
    refs[0].update(ann_id=[100], no_target=False)
    refs[1].update(ann_id=[-1], no_target=True, category_id=[-1])
    refs[2].update(ann_id=[101, 102], no_target=False, category_id=[1, 1])
    return Fixture(refer_files(folder, refs, name, instances), labels)


@layout
def grefcoco_json(folder: Path) -> Fixture:
    return grefs(folder, 'grefs(unc).json')


@layout
def grefcoco_pickle(folder: Path) -> Fixture:
    return grefs(folder, 'grefs(unc).p')


ATTRIBUTES = [('r1', ['man']), ('r2', ['none'])]


@layout
def transvg_unc(folder: Path) -> Fixture:
    rows = [(im, '1.pth', xywh(box), text, ATTRIBUTES) for im, box, text in singles()]
    return Fixture(to_torch(folder / 'unc_val.pth', rows), LABELS)


@layout
def transvg_referit(folder: Path) -> Fixture:
    rows = [(im, '1.pth', box, text, ATTRIBUTES) for im, box, text in singles()]
    return Fixture(to_torch(folder / '1_referit_train.pth', rows), LABELS)


@layout
def transvg_flickr(folder: Path) -> Fixture:
    return Fixture(to_torch(folder / '1_flickr_train_pseudo.pth', singles()), LABELS)


@layout
def clip_vg_pseudo(folder: Path) -> Fixture:
    name = 'useless placeholder'
    rows = [[im, name, xywh(box), text, name] for im, box, text in singles()]
    return Fixture(to_torch(folder / '1_unc+_train_pseudo_0_5.pth', rows), LABELS)


@layout
def clip_vg_iou_result(folder: Path) -> Fixture:
    rows = [
        [im, 'useless placeholder', xywh(b), t, torch.ones(4), torch.ones(4), 0.4]
        for im, b, t in singles()
    ]
    return Fixture(to_torch(folder / 'unc_train_iou_result.pth', rows), LABELS)


@layout
def hivg_mixup(folder: Path) -> Fixture:
    seconds = [dict(height=HEIGHT, width=WIDTH), 'flickr']
    rows = [
        (im, second, xywh(box), text, [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
        for (im, box, text), second in zip(singles(), seconds, strict=True)
    ]
    return Fixture(to_torch(folder / 'mixup_train.pth', rows), LABELS)


@layout
def oneref_box_xywh(folder: Path) -> Fixture:
    (folder / 'box_xywh').mkdir(exist_ok=True)
    rows = [(im, xywh(box), text) for im, box, text in singles()]
    return Fixture(to_torch(folder / 'box_xywh/flickr_train.pth', rows), LABELS)


@layout
def cpl(folder: Path) -> Fixture:
    rows = [(im, xywh(box), text, 0.7) for im, box, text in singles()]
    return Fixture(to_torch(folder / 'train_cross_modal.pth', rows), LABELS)


def mdetr_content(labels: list, **more: Any) -> dict:
    images, annotations = [], []
    for index, (image, boxes, text) in enumerate(labels):
        images.append(
            dict(
                file_name=image,
                height=HEIGHT,
                width=WIDTH,
                id=index,
                original_id=11,
                caption=text,
                tokens_negative=[[0, len(text)]],
                **more,
            )
        )
        annotations += [
            dict(
                area=1.0,
                iscrowd=0,
                image_id=index,
                category_id=1,
                id=len(annotations) + i,
                original_id=i,
                bbox=xywh(box),
                tokens_positive=[[0, 4]],
            )
            for i, box in enumerate(boxes)
        ]
    return dict(info={}, licenses=[], images=images, annotations=annotations)


@layout
def mdetr(folder: Path) -> Fixture:
    content = mdetr_content(LABELS, dataset_name='refcoco')
    return Fixture(to_json(folder / 'finetune_refcoco_val.json', content), LABELS)


@layout
def mdetr_several_targets(folder: Path) -> Fixture:
    labels = [FIRST, NONE, SEVERAL]
    content = mdetr_content(labels)
    content['annotations'].append(
        dict(image_id=1, category_id=-1, id=99, bbox=[0, 0, 0, 0], empty=True)
    )
    content['annotations'][-2]['tokens_positive'] = [[5, 9]]  # of the second target
    return Fixture(to_json(folder / 'RefDrone_test_mdetr.json', content), labels)


@layout
def mdetr_no_target_alone(folder: Path) -> Fixture:
    content = mdetr_content([NONE])
    content['annotations'].append(
        dict(image_id=0, category_id=-1, id=0, bbox=[0, 0, 0, 0], empty=True)
    )
    return Fixture(to_json(folder / 'none_val.json', content), [NONE])


@layout
def mdetr_flickr_phrases(folder: Path) -> Fixture:
    """``final_flickr_separateGT_*``: phrases of a caption have boxes."""
    image, caption = FIRST[0], 'a man and two cups'
    content = mdetr_content([(image, [], caption)], dataset_name='flickr')
    spans = [([10, 20, 40, 60], [[0, 5]]), ([60, 60, 90, 90], [[10, 18]])]
    spans.append(([100, 60, 150, 90], [[10, 18]]))
    content['annotations'] = [
        dict(id=i, image_id=0, bbox=xywh(b), tokens_positive=t, category_id=1)
        for i, (b, t) in enumerate(spans)
    ]
    labels = [
        (image, [spans[0][0]], 'a man'),
        (image, [spans[1][0], spans[2][0]], 'two cups'),
    ]
    path = folder / 'final_flickr_separateGT_val.json'
    return Fixture(to_json(path, content), labels)


@layout
def finecops_negatives(folder: Path) -> Fixture:
    content = mdetr_content([FIRST, NONE], positive_id=0, negative_type='L1')
    return Fixture(to_json(folder / 'finecops_test.json', content), [FIRST, NONE])


def odvg_line(image: str, caption: str, regions: list) -> dict:
    grounding = dict(caption=caption, regions=regions)
    return dict(filename=image, height=HEIGHT, width=WIDTH, grounding=grounding)


def odvg_region(box: list, phrase: Any) -> dict:
    return dict(bbox=box, phrase=phrase, tokens_positive=[[0, 4]])


@layout
def odvg(folder: Path) -> Fixture:
    rows = [odvg_line(im, t, [odvg_region(box, t)]) for im, box, t in singles()]
    return Fixture(to_lines(folder / 'refcoco_val_vg.json', rows), LABELS)


@layout
def odvg_several_targets(folder: Path) -> Fixture:
    """MMDetection's refcoco2odvg of gRefCOCO, and a line without a region."""
    rows = [
        odvg_line(FIRST[0], FIRST[2], [odvg_region(FIRST[1], [FIRST[2]])]),
        odvg_line(NONE[0], NONE[2], []),
        odvg_line(SEVERAL[0], SEVERAL[2], [odvg_region(SEVERAL[1], SEVERAL[2])]),
    ]
    return Fixture(to_lines(folder / 'gref.jsonl', rows), [FIRST, NONE, SEVERAL])


@layout
def odvg_phrases(folder: Path) -> Fixture:
    """GoldG: phrases of a caption, as lists of their parts (mmdet issue 12050)."""
    regions = [
        odvg_region([FIRST[1][0]], ['left', 'man']),
        odvg_region(SEVERAL[1], ['two cups']),
    ]
    rows = [odvg_line(FIRST[0], 'left man with two cups', regions)]
    labels = [FIRST, (FIRST[0], SEVERAL[1], 'two cups')]
    return Fixture(to_lines(folder / 'goldg.jsonl', rows), labels)


QUESTION = (
    'Please provide the bounding box coordinate of the region this sentence describes: '
)


@layout
def vlm_r1_eval(folder: Path) -> Fixture:
    rows = [
        dict(
            problem=f'{QUESTION}{text}.',
            solution=box,
            image=f'train2014/{image}',
            normal_caption=text,
            dataset='refcoco',
        )
        for image, box, text in singles()
    ]
    labels = [(f'train2014/{im}', boxes, text) for im, boxes, text in LABELS]
    return Fixture(to_json(folder / 'refcoco_val.json', rows), labels)


@layout
def vlm_r1_question(folder: Path) -> Fixture:
    """Their lisa_test has no ``normal_caption``."""
    rows = [
        dict(problem=f'{QUESTION}{text}.', solution=box, image=image)
        for image, box, text in singles()
    ]
    return Fixture(to_json(folder / 'lisa_test.json', rows), LABELS)


def conversation(question: str, answer: str, **more: Any) -> dict:
    turns = [
        dict([('from', 'human'), ('value', question)]),
        dict([('from', 'gpt'), ('value', answer)]),
    ]
    return dict(more, conversations=turns)


@layout
def vlm_r1_train(folder: Path) -> Fixture:
    rows = [
        conversation(f'<image>{QUESTION}{text}.', str(box), id=i, image=image)
        for i, (image, box, text) in enumerate(singles())
    ]
    return Fixture(to_lines(folder / 'refcoco_train.jsonl', rows), LABELS)


@layout
def qwen_vl_eval(folder: Path) -> Fixture:
    rows = [
        dict(image=im, sent=text, bbox=box, height=HEIGHT, width=WIDTH)
        for im, box, text in singles()
    ]
    return Fixture(to_lines(folder / 'refcoco_testA.jsonl', rows), LABELS)


def scaled(box: list, x: float, y: float) -> list:
    return [box[0] * x, box[1] * y, box[2] * x, box[3] * y]


@layout
def qwen_vl_train(folder: Path) -> Fixture:
    """0 to 1000; of these labels, all thousandths are whole."""
    labels = [(FIRST[0], [[64, 48, 320, 240]], 'left man')]
    rows = []
    for image, box, text in singles(labels):
        a, b, c, d = (int(v) for v in scaled(box, 1000 / WIDTH, 1000 / HEIGHT))
        rows.append(
            conversation(
                f'Picture 1: <img>{image}</img>\nWhere is it?',
                f'<ref>{text}</ref><box>({a},{b}),({c},{d})</box>',
                height=HEIGHT,
                width=WIDTH,
            )
        )
    return Fixture(to_json(folder / 'qwen.json', rows), labels)


def fenced(box: list, text: str) -> str:
    value = json.dumps([dict(bbox_2d=box, label=text)])
    return f'```json\n{value}\n```'


def messages(question: str, answer: str, **more: Any) -> dict:
    turns = [
        dict(role='user', content=question),
        dict(role='assistant', content=answer),
    ]
    return dict(more, messages=turns)


@layout
def qwen2_5_vl_chat(folder: Path) -> Fixture:
    """Pixels of the resized image: 644 x 476, of which 483 and more are no height."""
    labels = [(FIRST[0], [[0, 0, 640, 480]], 'all of it'), FIRST]
    rows = [
        messages(
            '<image>Locate the described object.',
            fenced(scaled(box, 644 / WIDTH, 476 / HEIGHT), text),
            images=[image],
            height=HEIGHT,
            width=WIDTH,
        )
        for image, box, text in singles(labels)
    ]
    files = to_json(folder / 'qwen25.json', rows)
    return Fixture(dict(files, box_unit='resized'), labels)


@layout
def qwen3_vl_chat(folder: Path) -> Fixture:
    """Thousandths, some of which are beyond the resized image."""
    labels = [FIRST, (FIRST[0], [[64, 48, 608, 456]], 'nearly all')]
    rows = [
        messages(
            '<image>Locate the described object.',
            fenced(scaled(box, 1000 / WIDTH, 1000 / HEIGHT), text),
            images=[image],
            height=HEIGHT,
            width=WIDTH,
        )
        for image, box, text in singles(labels)
    ]
    return Fixture(to_json(folder / 'qwen3.json', rows), labels)


@layout
def ms_swift(folder: Path) -> Fixture:
    rows = []
    for image, box, text in singles():
        objects = dict(ref=[text], bbox=[box])
        rows.append(
            messages('<image>Find <ref-object>', '<bbox>', images=[image])
            | dict(objects=objects)
        )
    norm = scaled(SECOND[1][0], 1000 / WIDTH, 1000 / HEIGHT)
    rows[1]['objects'].update(bbox=[norm], bbox_type='norm1000')
    rows[1].update(height=HEIGHT, width=WIDTH)
    return Fixture(to_lines(folder / 'swift.jsonl', rows), LABELS)


@layout
def llava(folder: Path) -> Fixture:
    """0 to 1 of the image padded to 640 x 640: 80 rows above and below."""
    labels = [(FIRST[0], [[64, 48, 320, 240]], 'left man')]
    box = [64 / 640, (48 + 80) / 640, 320 / 640, (240 + 80) / 640]
    rows = [
        conversation(
            f'<image>\n{QUESTION}left man.',
            str(box),
            id='1',
            image=FIRST[0],
            height=HEIGHT,
            width=WIDTH,
        )
    ]
    rows[0]['conversations'] += [
        dict([('from', 'human'), ('value', 'What is he doing?')]),
        dict([('from', 'gpt'), ('value', 'He waits.')]),
    ]
    return Fixture(to_json(folder / 'llava_mix.json', rows), labels)


@layout
def shikra(folder: Path) -> Fixture:
    rows = [
        dict(
            img_path=im,
            expression=text,
            bbox=box,
            dataset_name='refcoco',
            height=HEIGHT,
            width=WIDTH,
        )
        for im, box, text in singles()
    ]
    return Fixture(to_lines(folder / 'REC_refcoco_unc_val.jsonl', rows), LABELS)


@layout
def minigpt_v2(folder: Path) -> Fixture:
    rows = [
        dict(
            img_id=f'{im[:-4]}_{i}',
            sents=text,
            bbox=xywh(box),
            height=HEIGHT,
            width=WIDTH,
        )
        for i, (im, box, text) in enumerate(singles())
    ]
    return Fixture(to_json(folder / 'refcoco_val.json', rows), LABELS)


@layout
def seqtr(folder: Path) -> Fixture:
    entries = [
        dict(
            bbox=xywh(box),
            image_id=11 + i,
            height=HEIGHT,
            width=WIDTH,
            category_id=1,
            mask=[[1, 2, 3, 4, 5, 6]],
            expressions=[text],
            refid=i,
        )
        for i, (_, box, text) in enumerate(singles())
    ]
    value = dict(train=entries[:1], val=entries[1:], testA=[], testB=[])
    return Fixture(to_json(folder / 'instances.json', value), LABELS)


@layout
def simrec(folder: Path) -> Fixture:
    entries = [
        dict(iid=11 + i, refs=[text], cat_id=1, bbox=[box], mask_id=i)
        for i, (_, box, text) in enumerate(singles())
    ]
    return Fixture(to_json(folder / 'refcoco.json', dict(train=entries)), LABELS)


@layout
def lmms_lab_parquet(folder: Path) -> Fixture:
    rows = [
        dict(
            question_id=str(i),
            image=dict(bytes=b'not read', path=None),
            question='Please describe the area.',
            answer=[text],
            segmentation=[1.0, 2.0, 3.0],
            bbox=[float(v) for v in xywh(box)],
            iscrowd=0,
            file_name=f'{im[:-4]}_{i}.jpg',
        )
        for i, (im, box, text) in enumerate(singles())
    ]
    return Fixture(to_parquet(folder / 'val-00000-of-00001.parquet', rows), LABELS)


@layout
def jxu124_parquet(folder: Path) -> Fixture:
    rows = [
        dict(
            sent_ids=[i],
            file_name=f'{im[:-4]}_{i}.jpg',
            ann_id=i,
            ref_id=i,
            image_id=11 + i,
            split='train',
            sentences=[dict(raw=text, sent=text, sent_id=i, tokens=text.split())],
            category_id=1,
            raw_anns=json.dumps(dict(bbox=xywh(box))),
            raw_image_info=json.dumps(dict(file_name=im, height=HEIGHT, width=WIDTH)),
            raw_sentences='[]',
            image_path=f'coco/train2014/{im}',
            bbox=[float(v) for v in box],
            captions=[text],
            global_image_id=f'coco.{11 + i}',
            anns_id=f'{i}',
        )
        for i, (im, box, text) in enumerate(singles())
    ]
    return Fixture(to_parquet(folder / 'train-00000-of-00001.parquet', rows), LABELS)


def ref_l4_rows() -> list:
    return [
        dict(
            id=i,
            caption=text,
            bbox=[float(v) for v in xywh(box)],
            bbox_area=1.0,
            bbox_id=i,
            ori_category_id='1',
            image_id=11 + i,
            height=HEIGHT,
            width=WIDTH,
            file_name=im,
            is_rewrite=False,
            split='val',
        )
        for i, (im, box, text) in enumerate(singles())
    ]


@layout
def ref_l4_parquet(folder: Path) -> Fixture:
    return Fixture(to_parquet(folder / 'ref-l4-val.parquet', ref_l4_rows()), LABELS)


@layout
def ref_l4_lines(folder: Path) -> Fixture:
    """The same rows as JSON Lines: what a row is does not depend on the container."""
    return Fixture(to_lines(folder / 'ref-l4-val.jsonl', ref_l4_rows()), LABELS)


def refcoco_m_rows() -> list:
    return [
        dict(
            image=dict(bytes=b'not read', path=im),
            image_id=11 + i,
            file_name=im,
            samples=[
                dict(
                    id=str(i),
                    category='x',
                    label='x',
                    sentences=[text],
                    bbox=[float(v) for v in box],
                    mask=dict(counts='abc', size=[HEIGHT, WIDTH]),
                )
            ],
        )
        for i, (im, box, text) in enumerate(singles())
    ]


@layout
def refcoco_m_parquet(folder: Path) -> Fixture:
    return Fixture(to_parquet(folder / 'refcoco_m.parquet', refcoco_m_rows()), LABELS)


@layout
def refcoco_m_lines(folder: Path) -> Fixture:
    rows = [dict(row, image=None) for row in refcoco_m_rows()]
    return Fixture(to_lines(folder / 'refcoco_m.jsonl', rows), LABELS)


@layout
def humanref(folder: Path) -> Fixture:
    labels = [SECOND, NONE, SEVERAL]
    rows = [
        dict(
            id=i,
            image_name=im,
            candidate_boxes=boxes,
            answer_boxes=boxes,
            answer_segmentations=[],
            referring=text,
            word='person',
            domain='attribute',
            sub_domain='x',
            height=HEIGHT,
            width=WIDTH,
        )
        for i, (im, boxes, text) in enumerate(labels)
    ]
    return Fixture(to_lines(folder / 'annotations.jsonl', rows), labels)


def voc_xml(labels: list) -> str:
    objects = ''.join(
        '<object><name>thing</name><pose>x</pose><bndbox>'
        + ''.join(
            f'<{k}>{v}</{k}>'
            for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True)
        )
        + f'</bndbox><description>{text}</description></object>'
        for _, box, text in singles(labels)
    )
    return (
        f'<annotation><filename>{labels[0][0]}</filename><size><width>{WIDTH}</width>'
        f'<height>{HEIGHT}</height><depth>3</depth></size>{objects}</annotation>'
    )


@layout
def dior_rsvg(folder: Path) -> Fixture:
    (folder / 'Annotations').mkdir(exist_ok=True)
    for name, label in zip(('00001', '00002'), LABELS, strict=True):
        (folder / 'Annotations' / f'{name}.xml').write_text(voc_xml([label]))
    (folder / 'val.txt').write_text('1\n')
    files = dict(ann_file=folder / 'Annotations', split_file=folder / 'val.txt')
    return Fixture(files, [SECOND])


@layout
def voc_file(folder: Path) -> Fixture:
    labels = [FIRST, (FIRST[0], SECOND[1], 'the cup')]
    (folder / '00001.xml').write_text(voc_xml(labels))
    return Fixture(dict(ann_file=folder / '00001.xml'), labels)


@layout
def florence(folder: Path) -> Fixture:
    labels = [(FIRST[0], [[64, 48, 320, 240]], 'left man')]
    rows = [
        dict(
            image=FIRST[0],
            prefix='<CAPTION_TO_PHRASE_GROUNDING>left man',
            suffix='left man<loc_100><loc_100><loc_500><loc_500>',
            height=HEIGHT,
            width=WIDTH,
        )
    ]
    return Fixture(to_lines(folder / '_annotations.train.jsonl', rows), labels)


@layout
def paligemma(folder: Path) -> Fixture:
    """1024 places, y first: 256 is 120 of 480 rows, 512 is 320 of 640 columns."""
    labels = [(FIRST[0], [[320, 120, 640, 240]], 'left man')]
    rows = [
        dict(
            image=FIRST[0],
            prefix='detect left man',
            suffix='<loc0256><loc0512><loc0512><loc1024> left man',
            height=HEIGHT,
            width=WIDTH,
        )
    ]
    return Fixture(to_lines(folder / 'paligemma.jsonl', rows), labels)


@layout
def visual_genome(folder: Path) -> Fixture:
    rows = [
        dict(
            id=7,
            regions=[
                dict(
                    region_id=1 + i,
                    image_id=7,
                    phrase=text,
                    x=xywh(box)[0],
                    y=xywh(box)[1],
                    width=xywh(box)[2],
                    height=xywh(box)[3],
                )
                for i, (_, box, text) in enumerate(singles())
            ],
        )
    ]
    labels = [('7.jpg', boxes, text) for _, boxes, text in LABELS]
    return Fixture(to_json(folder / 'region_descriptions.json', rows), labels)


@layout
def imagefolder(folder: Path) -> Fixture:
    rows = [
        dict(file_name=im, objects=dict(bbox=[xywh(box)], text=[text]))
        for im, box, text in singles()
    ]
    return Fixture(to_lines(folder / 'metadata.jsonl', rows), LABELS)


@layout
def plain_lines(folder: Path) -> Fixture:
    rows = [
        dict(image=im, text=text, bbox=box, height=HEIGHT, width=WIDTH)
        for im, box, text in singles()
    ]
    return Fixture(to_lines(folder / 'mine_train.jsonl', rows), LABELS)


@layout
def plain_json_of_other_names(folder: Path) -> Fixture:
    rows = [
        dict(file=im, size=[1, 2], words=text, where=dict(xywh=xywh(box)))
        for im, box, text in singles()
    ]
    files = to_json(folder / 'mine.json', rows)
    fields = dict(image='file', text='words', box='where.xywh')
    return Fixture(dict(files, fields=fields, box_format='xywh'), LABELS)


def csv_text(separator: str, rows: list) -> str:
    quoted = [
        ['"{}"'.format(str(cell).replace('"', '""')) for cell in row] for row in rows
    ]
    return ''.join(separator.join(row) + '\r\n' for row in quoted)


@layout
def plain_csv(folder: Path) -> Fixture:
    header = ['image', 'expression', 'x1', 'y1', 'x2', 'y2']
    rows = [[im, text, *box] for im, box, text in singles()]
    path = folder / 'mine_val.csv'
    path.write_text('\ufeff' + csv_text(',', [header, *rows]))
    return Fixture(dict(ann_file=path), LABELS)


@layout
def plain_tsv(folder: Path) -> Fixture:
    header = ['file_name', 'caption', 'bbox_xywh', 'image_width', 'image_height']
    rows = [[im, t, str(xywh(box)), WIDTH, HEIGHT] for im, box, t in singles()]
    rows.append([NONE[0], NONE[2], '', WIDTH, HEIGHT])
    path = folder / 'mine.tsv'
    path.write_text(csv_text('\t', [header, *rows]))
    return Fixture(dict(ann_file=path), [*LABELS, NONE])


@layout
def plain_parquet(folder: Path) -> Fixture:
    rows = [
        dict(
            image=im, text=text, cx=b[0] + b[2] / 2, cy=b[1] + b[3] / 2, w=b[2], h=b[3]
        )
        for im, box, text in singles()
        for b in [xywh(box)]
    ]
    return Fixture(to_parquet(folder / 'mine.parquet', rows), LABELS)


# --- labelling tools ----------------------------------------------------------------

# What their exports have: one expression for two boxes is a label of two targets.
DRAWN = [FIRST, SECOND, (SECOND[0], SEVERAL[1], 'both cups')]


@layout
def coco_texts(folder: Path) -> Fixture:
    """The key at the annotation, and among the attributes as CVAT's COCO export."""
    annotations = []
    for image, boxes, text in DRAWN:
        for box in boxes:
            entry = dict(id=len(annotations), category_id=1, bbox=xywh(box))
            entry['image_id'] = [FIRST[0], SECOND[0]].index(image) + 1
            if image == FIRST[0]:
                entry.update(expression=text, attributes=dict(occluded=False))
            else:
                entry['attributes'] = dict(occluded=False, expression=text)
            annotations.append(entry)
    images = [
        dict(id=number, file_name=name, height=HEIGHT, width=WIDTH)
        for number, name in enumerate((FIRST[0], SECOND[0]), 1)
    ]
    value = dict(images=images, annotations=annotations, categories=[])
    return Fixture(to_json(folder / 'instances_default.json', value), DRAWN)


@layout
def cvat_images(folder: Path) -> Fixture:
    lines = ['<?xml version="1.0" encoding="utf-8"?>', '<annotations>']
    lines += ['<version>1.1</version>', '<meta><task><id>1</id></task></meta>']
    for number, name in enumerate((FIRST[0], SECOND[0])):
        lines.append(
            f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
        )
        for image, boxes, text in DRAWN:
            for x1, y1, x2, y2 in boxes if image == name else []:
                lines.append(
                    f'<box label="thing" source="manual" occluded="0" xtl="{x1}.00" '
                    f'ytl="{y1}.00" xbr="{x2}.00" ybr="{y2}.00" z_order="0">'
                    '<attribute name="blurred">false</attribute><attribute '
                    f'name="expression">{escape(text)}</attribute></box>'
                )
        lines.append('</image>')
    path = folder / 'annotations.xml'
    path.write_text('\n'.join([*lines, '</annotations>']))
    return Fixture(dict(ann_file=path), DRAWN)


@layout
def label_studio(folder: Path) -> Fixture:
    """Percent of the image; local and uploaded images; a cancelled annotation."""
    tasks = []
    addresses = [f'/data/local-files/?d=mine/{FIRST[0]}', f'/data/upload/1/{SECOND[0]}']
    for address, name in zip(addresses, (FIRST[0], SECOND[0]), strict=True):
        results: list[dict] = []
        for image, boxes, text in DRAWN:
            for box in boxes if image == name else []:
                x, y, w, h = scaled(xywh(box), 100 / WIDTH, 100 / HEIGHT)
                shared = dict(
                    id=f'region{len(results)}', to_name='image', origin='manual',
                    original_width=WIDTH, original_height=HEIGHT, image_rotation=0,
                )  # fmt: skip
                place = dict(x=x, y=y, width=w, height=h, rotation=0)
                results += [
                    dict(
                        shared, from_name='label', type='rectanglelabels',
                        value=dict(place, rectanglelabels=['thing']),
                    ),
                    dict(
                        shared, from_name='caption', type='textarea',
                        value=dict(place, text=[text]),
                    ),
                ]  # fmt: skip
        cancelled = dict(id=9, result=results[:2], was_cancelled=True)
        done = dict(id=8, result=results, was_cancelled=False, ground_truth=False)
        tasks.append(
            dict(id=len(tasks) + 1, data=dict(image=address), predictions=[],
                 annotations=[cancelled, done])
        )  # fmt: skip
    return Fixture(to_json(folder / 'project-1-at-2026.json', tasks), DRAWN)
