"""Asking pictures: as the test loop answers, whatever the pictures come as."""

import json
import runpy
import shutil

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import Runner
from PIL import Image

from projects.clip_vg.apis import GroundingInferencer
from projects.clip_vg_core.data.questions import read_questions
from projects.clip_vg_core.utils.folder_lock import lock_folder
from projects.clip_vg_core.visualization.boxes import color_of, draw_predictions

from ..helpers import ROOT
from ..helpers.configs import runner_config
from ..helpers.models import save_tiny

ASKED = ['red circle', 'the star on the left', 'left']


@pytest.fixture(scope='module')
def checkpoint(shapes, sources, tmp_path_factory):
    """Of a config whose test loader has a pipeline."""
    work_dir = tmp_path_factory.mktemp('asked')
    torch.manual_seed(0)
    cfg = runner_config(shapes, sources, work_dir)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator, cfg.test_cfg = cfg.val_evaluator, dict(type='TestLoop')
    Runner.from_cfg(cfg).train()
    return work_dir / 'epoch_2.pth'


@pytest.fixture(scope='module')
def ask(checkpoint):
    return GroundingInferencer(checkpoint, device='cpu', batch_size=2)


@pytest.fixture
def picture(shapes):
    return sorted((shapes / 'images').glob('*.jpg'))[0]


def boxes(answers):
    return np.array([p['bboxes'] for p in answers['predictions']])


@torch.no_grad()
def test_answers_are_those_of_the_test_loop(ask, checkpoint, shapes, sources):
    cfg = ask.cfg.copy()
    cfg.load_from, cfg.work_dir = str(checkpoint), str(checkpoint.parent / 'test')
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    for batch in runner.test_dataloader:
        for sample in runner.model.eval().test_step(batch):
            found = ask(sample.img_path, sample.text)['predictions'][0]
            assert found['texts'] == list(sample.text)
            height, width = sample.ori_shape
            expected = sample.pred_instances.bboxes.clamp(min=0)
            expected = expected.minimum(torch.tensor([width, height] * 2))
            np.testing.assert_allclose(found['bboxes'], expected, atol=1e-3)


def test_boxes_end_at_the_edges_of_the_picture(checkpoint):
    ask = GroundingInferencer(checkpoint, device='cpu')
    last = ask.model.bbox_head.mlp.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 0.0, 20.0, 20.0])  # all of the padded square
    picture = np.zeros((30, 70, 3), np.uint8)
    np.testing.assert_allclose(boxes(ask(picture, ['star']))[0], [[0, 0, 70, 30]])


def test_a_picture_may_come_as_file_array_or_pil(ask, picture):
    with Image.open(picture) as file:
        pil = file.convert('RGB')
    array = np.asarray(pil)[..., ::-1]
    one = boxes(ask(picture, ASKED))
    assert one.shape == (1, 3, 4)
    for other in (str(picture), array, pil):
        np.testing.assert_array_equal(boxes(ask(other, ASKED)), one)


def test_several_pictures_are_answered_in_order_as_one_by_one(ask, shapes):
    files = sorted((shapes / 'images').glob('*.jpg'))[:5]
    asked = [ASKED[: 1 + i % 3] for i in range(5)]
    together = ask(files, asked)['predictions']
    assert [p['image'] for p in together] == [str(f) for f in files]
    for file, texts, answer in zip(files, asked, together, strict=True):
        alone = ask(file, texts)['predictions'][0]
        np.testing.assert_allclose(answer['bboxes'], alone['bboxes'], atol=1e-3)
        assert answer['texts'] == texts


def test_a_folder_is_its_pictures(ask, shapes):
    found = ask(shapes / 'images', 'star')['predictions']
    assert len(found) == len(list((shapes / 'images').glob('*.jpg')))
    assert all(answer['texts'] == ['star'] for answer in found)


def test_a_picture_is_turned_upright(ask, picture, tmp_path):
    with Image.open(picture) as file:
        upright = file.convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    upright.rotate(90, expand=True).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_allclose(
        boxes(ask(tmp_path / 'a.png', ASKED)), boxes(ask(upright, ASKED)), atol=1e-3
    )


@pytest.mark.parametrize(
    ('images', 'asked', 'message'),
    [
        ('one', [], 'image 1: '),
        ('one', ['a', ' '], 'none of them empty'),
        ('one', [3], 'none of them empty'),
        ('two', ['a', 'b', 'c'], '2 .* 3 '),
        ('two', ['a', []], 'image 2'),
    ],
)
def test_expressions_that_do_not_fit(ask, picture, images, asked, message):
    given = picture if images == 'one' else [picture, picture]
    with pytest.raises(ValueError, match=message):
        ask(given, asked)


def test_pictures_that_cannot_be_read(ask, tmp_path):
    (tmp_path / 'a.jpg').write_text('no picture')
    with pytest.raises(ValueError, match=r'a\.jpg'):
        ask(tmp_path / 'a.jpg', 'star')
    with pytest.raises(FileNotFoundError, match=r'\.jpg'):
        ask(tmp_path / 'b.jpg', 'star')
    with pytest.raises(ValueError, match='expected .*BGR, uint8'):
        ask(np.zeros((4, 4), np.uint8), 'star')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty'):
        ask(tmp_path / 'empty', 'star')


def test_config_and_checkpoint_in_either_place(ask, checkpoint, picture, tmp_path):
    config = tmp_path / 'config.py'
    ask.cfg.dump(config)
    expected = boxes(ask(picture, ASKED))
    for other in (
        GroundingInferencer(checkpoint, config=config, device='cpu'),
        GroundingInferencer(config, checkpoint=checkpoint, device='cpu'),
    ):
        np.testing.assert_array_equal(boxes(other(picture, ASKED)), expected)
    with pytest.raises(FileNotFoundError, match='none.pth'):
        GroundingInferencer(tmp_path / 'none.pth')


def test_bfloat16_answers_almost_the_same(ask, checkpoint, picture):
    half = GroundingInferencer(checkpoint, device='cpu', dtype=torch.bfloat16)
    width = Image.open(picture).width
    np.testing.assert_allclose(
        boxes(half(picture, ASKED)), boxes(ask(picture, ASKED)), atol=0.03 * width
    )


def test_pictures_with_answers(ask, picture, tmp_path):
    found = ask(picture, ASKED, out_dir=tmp_path)
    (drawn,) = found['visualization']
    with Image.open(picture) as file:
        assert drawn.shape[0] > file.height and drawn.shape[1] == file.width
    with Image.open(tmp_path / 'vis' / picture.name) as file:
        assert file.size == drawn.shape[1::-1]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_result_has_a_file_of_its_own(ask, picture, tmp_path):
    """Images of one name, an image given twice, and arrays of several calls."""
    with Image.open(picture) as file:
        array = np.asarray(file)[..., ::-1]
    other = tmp_path / 'other' / picture.name
    other.parent.mkdir()
    Image.open(picture).resize((30, 20)).save(other)
    out = tmp_path / 'out'
    ask([picture, other, picture], ['star', 'star', 'circle'], out_dir=out)
    assert len(names(out / 'vis')) == 3
    assert sorted(Image.open(path).width for path in (out / 'vis').iterdir()) == [
        *(30, array.shape[1], array.shape[1])
    ]
    before = names(out / 'vis')
    ask(other, 'circle', out_dir=out)  # again: in the place of its first
    assert names(out / 'vis') == before
    ask(array, 'star', out_dir=out)
    ask([array, array], 'circle', out_dir=out)
    assert names(out / 'vis')[:3] == ['000000.png', '000001.png', '000002.png']
    assert len(names(out / 'vis')) == 6
    ask(other, 'star', out_dir=tmp_path / 'elsewhere')
    assert names(tmp_path / 'elsewhere' / 'vis') == [other.name]


@pytest.mark.parametrize('corner', [(10, 30), (0, 0), (70, 2), (75, 55)])
def test_equal_boxes_do_not_hide_each_others_number(corner):
    image = np.full((200, 320, 3), 255, np.uint8)
    left, top = corner
    box = [left, top, left + 8, top + 5]
    count = 5

    def plain(drawn, number):  # pixels of the number's background and box
        return (drawn[:200] == color_of(number)).all(-1).sum()

    drawn = draw_predictions(image, [box] * count, ['a'] * count)
    for number in range(count):
        alone = [[-50, -50, -40, -40]] * number  # those before lie outside
        lone = draw_predictions(image, [*alone, box], ['a'] * (number + 1))
        # The box, where another is drawn over it, but not the number.
        assert plain(drawn, number) > 0.5 * plain(lone, number)


def test_boxes_and_legend_are_drawn_in_their_colours():
    image = np.full((60, 80, 3), 128, np.uint8)
    drawn = draw_predictions(image, [[10, 30, 50, 55], [-5, -5, 200, 20]], ['a', 'b'])
    assert tuple(drawn[54, 30]) == color_of(0)
    assert (drawn[:60] == color_of(1)).all(-1).any()
    assert (drawn[60:] == color_of(0)).all(-1).any()
    assert (image == 128).all()
    assert draw_predictions(image, [], []).shape[1] == 80


def test_a_later_box_does_not_cross_out_a_number():
    image = np.full((200, 320, 3), 255, np.uint8)
    number, across = [100, 100, 140, 140], [90, 88, 260, 190]

    def plain(boxes):  # pixels of the number's background
        drawn = draw_predictions(image, boxes, ['a'] * len(boxes))
        return (drawn[80:100, 100:140] == color_of(0)).all(-1).sum()

    assert plain([number, across]) == plain([number]) > 50


def test_several_boxes_have_the_colour_and_the_line_of_their_expression():
    image = np.full((120, 400, 3), 255, np.uint8)
    boxes = [[20, 40, 40, 60], [70, 40, 90, 60], [20, 90, 40, 110]]
    several = draw_predictions(image, boxes, ['a', 'b', 'c'], [0, 0, 2])
    one_each = draw_predictions(image, boxes, ['a', 'b', 'c'])
    for (left, _, right, bottom), number in zip(boxes, (0, 0, 2), strict=True):
        edge = several[bottom - 1, left:right]
        assert (edge == color_of(number)).all()
    assert several.shape == one_each.shape
    assert not (several[:120] == color_of(1)).all(-1).any()
    # Three expressions in the legend, those without a box and with scores marked.
    assert (several[120:] == color_of(1)).all(-1).any()
    unscored = draw_predictions(image, boxes, ['a', 'b', 'c'], [0, 0, 2], [None] * 3)
    assert np.array_equal(unscored, several)
    scored = draw_predictions(image, boxes, ['a', 'b', 'c'], [0, 0, 2], [0.9, 0.8, 0.7])
    assert np.array_equal(scored[:120], several[:120])
    ink = [(drawn[120:] < 99).all(-1).sum() for drawn in (one_each, several, scored)]
    assert ink[0] < ink[1] < ink[2]


@pytest.fixture(scope='module')
def several(checkpoint, tmp_path_factory):
    """A checkpoint of three queries whose scores differ, with a threshold."""
    cfg = GroundingInferencer(checkpoint, device='cpu').cfg
    head = dict(type='GroundingConfidenceHead')
    cfg.model.update(num_queries=3, confidence_head=head, test_cfg=dict(score_thr=0.0))
    torch.manual_seed(1)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for layer in (model.confidence_head.mlp.layers[-1], model.bbox_head.mlp.layers[-1]):
        torch.nn.init.normal_(layer.weight, std=0.4)
    path = tmp_path_factory.mktemp('several') / 'several.pth'

    def save(score_thr):
        cfg.model.test_cfg.score_thr = score_thr
        meta = dict(cfg=cfg.pretty_text)
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
        return path

    return save


def test_boxes_from_the_checkpoints_threshold_on_the_best_first(several, picture):
    every = GroundingInferencer(several(0.0), device='cpu')
    (whole,) = every(picture, ASKED)['predictions']
    assert whole['labels'] == [0, 0, 0, 1, 1, 1, 2, 2, 2] and whole['texts'] == ASKED
    scores = np.array(whole['scores'])
    assert scores.std() > 0.01
    assert (np.diff(scores.reshape(3, 3), axis=1) <= 0).all()
    least = float(np.sort(scores)[4])  # five of the nine boxes
    path = several(least)
    own = GroundingInferencer(path, device='cpu')(picture, ASKED)['predictions'][0]
    shown = scores >= np.float32(least)
    for key in ('bboxes', 'labels', 'scores'):
        assert own[key] == [v for v, s in zip(whole[key], shown, strict=True) if s], key
    assert len(own['bboxes']) == 5
    # What is given by name comes before the checkpoint.
    other = GroundingInferencer(path, device='cpu', score_thr=0.0)
    assert other(picture, ASKED)['predictions'] == [whole]
    none = GroundingInferencer(path, device='cpu', score_thr=1.0)
    (nothing,) = none(picture, ASKED)['predictions']
    assert (nothing['bboxes'], nothing['labels'], nothing['scores']) == ([], [], [])
    assert nothing['texts'] == ASKED


def test_without_a_confidence_head_scores_are_missing(checkpoint, several, picture):
    one = GroundingInferencer(checkpoint, device='cpu', score_thr=0.0)
    (found,) = one(picture, ASKED)['predictions']
    assert found['scores'] == [None] * 3 == [None] * len(found['bboxes'])
    assert GroundingInferencer(several(0.0), device='cpu').scored and not one.scored
    with pytest.raises(ValueError, match=r'epoch_2\.pth: score_thr=0\.5.*no scores'):
        GroundingInferencer(checkpoint, device='cpu', score_thr=0.5)


def test_a_threshold_that_is_no_score_is_refused(several):
    with pytest.raises(ValueError, match=r'several\.pth.*score_thr=50'):
        GroundingInferencer(several(50), device='cpu')


def test_the_command_says_what_is_not_in_the_image(several, picture, tmp_path, caplog):
    caplog.set_level('INFO')
    command = [picture, *ASKED, '--checkpoint', several(0.0), '--out-dir', tmp_path]
    demo(*command)
    (whole,) = json.loads((tmp_path / 'answers.json').read_text())
    assert len(whole['bboxes']) == 9 and 'not in this image' not in caplog.text
    caplog.clear()
    best = max(whole['scores'])
    demo(*command, '--score-thr', best - 1e-4)
    (one,) = json.loads((tmp_path / 'answers.json').read_text())
    assert 1 <= len(one['bboxes']) < 9 and max(one['scores']) == best
    absent = set(range(3)) - set(one['labels'])
    assert caplog.text.count('not in this image') == len(absent) > 0


def demo(*args):
    module = runpy.run_path(str(ROOT / 'demo' / 'ground.py'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', ['ground.py', *map(str, args)])
        module['main']()


def test_the_command_prints_draws_and_writes(checkpoint, picture, tmp_path, caplog):
    caplog.set_level('INFO')
    demo(picture, *ASKED, '--checkpoint', checkpoint, '--out-dir', tmp_path)
    (answer,) = json.loads((tmp_path / 'answers.json').read_text())
    assert answer['texts'] == ASKED
    assert answer['scores'] == [None, None, None]  # there is no confidence head
    assert 'the star on the left' in caplog.text and '1.00' not in caplog.text
    assert (tmp_path / f'{picture.stem}.png').is_file()


def test_images_of_one_stem_are_drawn_into_files_of_their_own(
    checkpoint, picture, tmp_path
):
    pictures = tmp_path / 'pictures'
    (pictures / 'sub').mkdir(parents=True)
    for width, name in ((40, 'a.jpg'), (50, 'a.png'), (60, 'sub/a.jpg'), (70, 'b.jpg')):
        Image.open(picture).resize((width, 30)).save(pictures / name)
    out = tmp_path / 'out'
    demo(pictures, 'star', '--checkpoint', checkpoint, '--out-dir', out)
    assert sorted(Image.open(path).width for path in out.glob('*.png')) == [
        *(40, 50, 60, 70)
    ]
    assert {'a.jpg.png', 'a.png.png', 'b.jpg.png'} < set(names(out))
    assert len(json.loads((out / 'answers.json').read_text())) == 4


def test_a_second_command_in_a_folder_is_refused(checkpoint, picture, tmp_path):
    with (
        lock_folder(tmp_path),
        pytest.raises(RuntimeError, match=f'{tmp_path.name} is in use'),
    ):
        demo(picture, *ASKED, '--checkpoint', checkpoint, '--out-dir', tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['.lock']


@pytest.mark.parametrize('name', ['../a.png', '/etc/a.png'])
def test_questions_do_not_lead_out_of_the_folder(tmp_path, name):
    Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')
    (tmp_path / 'images').mkdir()
    (tmp_path / 'q.jsonl').write_text(json.dumps(dict(image=name, expression='x')))
    with pytest.raises(ValueError, match=r'q\.jsonl, line 1.*leads out'):
        read_questions(tmp_path / 'q.jsonl', tmp_path / 'images')


@pytest.mark.parametrize('kind', ['csv', 'jsonl'])
def test_a_file_of_questions_goes_on_where_it_was(checkpoint, shapes, tmp_path, kind):
    names = [path.name for path in sorted((shapes / 'images').glob('*.jpg'))[:3]]
    rows = [(names[0], 'star'), (names[1], 'a, b'), (names[0], 'circle')]
    path = tmp_path / f'asked.{kind}'
    if kind == 'csv':
        text = 'image,expression\n' + ''.join(f'{i},"{e}"\n' for i, e in rows)
    else:
        text = ''.join(json.dumps(dict(image=i, expression=e)) + '\n' for i, e in rows)
    path.write_text(text)
    out = tmp_path / 'out'
    command = [
        *(shapes / 'images', '--expressions-file', path, '--checkpoint', checkpoint),
        *('--out-dir', out, '--batch-size', 1),
    ]
    demo(*command)
    whole = (out / 'asked.jsonl').read_text()
    answers = [json.loads(line) for line in whole.splitlines()]
    assert [a['texts'] for a in answers] == [['star', 'circle'], ['a, b']]
    (out / 'asked.jsonl').write_text(whole.splitlines()[0] + '\n{"half')
    demo(*command)
    assert (out / 'asked.jsonl').read_text() == whole
    assert [a['scores'] for a in answers] == [[None] * 2, [None]]
    other = save_tiny(tmp_path / 'other' / 'tiny.pth', seed=7)
    command[4] = other
    with pytest.raises(ValueError, match='asked.jsonl.*checkpoint was'):
        demo(*command)
    assert (out / 'asked.jsonl').read_text() == whole
    demo(*command, '--overwrite')
    assert (out / 'asked.jsonl').read_text() != whole
    command[4] = checkpoint
    path.write_text(text.replace('star', 'blue star'))
    with pytest.raises(ValueError, match='questions was'):
        demo(*command)
    path.write_text(text + (f'{names[0]},\n' if kind == 'csv' else '{"image": "x"}\n'))
    with pytest.raises(ValueError, match='line 5' if kind == 'csv' else 'line 4'):
        demo(*command)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('g++'), reason='there is no C++ compiler')
def test_compiled_it_answers_the_same(ask, checkpoint, shapes):
    compiled = GroundingInferencer(checkpoint, device='cpu', batch_size=2, compile=True)
    pictures = sorted((shapes / 'images').glob('*.jpg'))[:3]
    for asked in (ASKED[:1], ASKED, [*ASKED, 'the big blue square at the top']):
        expected = boxes(ask(pictures, [asked] * 3))
        np.testing.assert_allclose(
            boxes(compiled(pictures, [asked] * 3)), expected, atol=1e-3
        )


def test_compiling_without_a_compiler_is_refused(checkpoint, monkeypatch):
    monkeypatch.setenv('PATH', '')
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(RuntimeError, match=r'C\+\+ compiler'):
        GroundingInferencer(checkpoint, device='cpu', compile=True)
