"""How many pseudo-labels are right, by source and template, and what each rule loses.

    python benchmarks/pseudo_label_correctness.py

Synthetic images; a detector, a scene-graph model and a captioner are simulated with
known errors; every label is compared with the truth. Prints tables in Markdown.
"""

import argparse
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from label_truth import SET_VERDICTS, VERDICTS, verdict_of, verdict_of_set

from projects.clip_vg.synthetic.data_set import make_synthetic
from projects.clip_vg.synthetic.detections import (
    ErrorRates,
    read_shapes,
    simulate_predictions,
)
from projects.clip_vg_core.pseudo_labels.detection import iou
from projects.clip_vg_core.pseudo_labels.generation import (
    KINDS,
    Generation,
    MakerSettings,
    generate,
)
from projects.clip_vg_core.pseudo_labels.inputs import InputFiles
from projects.clip_vg_core.utils.command_line import parse_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=2000,
        help='number of images to draw (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of images and errors (default: %(default)s)',
    )
    parser.add_argument(
        '--parser',
        default='en_core_web_sm',
        help='spaCy model that parses captions (default: %(default)s)',
    )
    return parse_command(parser, 'benchmarks/pseudo_label_correctness.py')


@dataclass
class Run:
    """A source with some of its constants changed."""

    name: str
    kind: str
    options: Mapping[str, Any]
    use_attributes: bool = True


# What a label is made without: the rule's number in docs/pseudo_labels.md.
RUNS = (
    Run('template', 'template', {}),
    Run('template, small objects kept (2)', 'template', dict(min_area=0.0)),
    Run('template, doubles kept (3)', 'template', dict(max_iou=1.0)),
    Run('template, no attributes (4)', 'template', {}, use_attributes=False),
    Run('template, no places (6)', 'template', dict(use_location=False)),
    Run('template, clear texts only', 'template', dict(unique=True)),
    Run('template, plural', 'template', dict(plural=True)),
    Run('template, absent', 'template', dict(absent=3)),
    Run('relation', 'relation', {}),
    Run('relation, all scores', 'relation', dict(min_score=0.0)),
    Run('relation, clear texts only', 'relation', dict(unique=True)),
    Run('caption', 'caption', {}),
    Run('caption, clear captions only', 'caption', dict(keep_ambiguous=False)),
    Run('geometry', 'geometry', {}),
    Run('geometry, unclear texts kept', 'geometry', dict(unique=False)),
)


def read_labels(path: Path) -> Iterator[tuple[str, str, str, list[Any]]]:
    """Image, rule, expression and boxes of each label."""
    with path.open(encoding='utf-8') as file:
        for line in map(json.loads, file):
            grounding = line['grounding']
            boxes = [region['bbox'] for region in grounding['regions']]
            if boxes and isinstance(boxes[0][0], list):
                (boxes,) = boxes
            yield line['filename'], line['rule'], grounding['caption'], boxes


def table(
    title: str, rows: Mapping[str, Counter], verdicts: Sequence[str] = VERDICTS
) -> str:
    """Shares of the verdicts, in Markdown."""
    lines = [
        f'\n| {title} | labels | {" | ".join(verdicts)} |',
        '|---' * (2 + len(verdicts)) + '|',
    ]
    for name, counted in rows.items():
        total = sum(counted.values())
        cells = [f'{counted[verdict] / max(1, total):.3f}' for verdict in verdicts]
        lines.append(f'| {name} | {total:,} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Make, compare, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = make_synthetic(
            Path(folder, 'data'), dict(train=args.num_images), args.seed
        )
        instances = root / 'shapes' / 'instances.json'
        models = simulate_predictions(instances, Path(folder, 'models'), seed=args.seed)
        truth = {
            image['file_name']: ((image['width'], image['height']), objects)
            for image, objects in read_shapes(instances)
        }
        by_run: dict[str, Counter] = {}
        by_rule: dict[str, dict[str, Counter]] = {}
        sets: dict[str, Counter] = {}
        reached: dict[str, float] = {}
        for run in RUNS:
            inputs = InputFiles(instances=instances)
            if run.kind == 'relation':
                inputs.triplets = models / 'triplets.json'
            else:
                inputs.detections = models / 'detections.json'
            if run.kind == 'caption':
                inputs.captions = models / 'captions.json'
            out = Path(folder, f'{len(by_run)}.jsonl')
            settings = MakerSettings(
                run.kind,
                KINDS[run.kind](**run.options),
                run.kind,
                parser=args.parser,
                use_attributes=run.use_attributes,
            )
            generate(Generation(out, inputs, settings))
            by_run[run.name] = Counter()
            found: set[tuple[str, int]] = set()
            for image, rule, text, boxes in read_labels(out):
                size, objects = truth[image]
                if len(boxes) != 1:
                    counted = sets.setdefault(f'{run.name}: {rule}', Counter())
                    counted[verdict_of_set(text, boxes, size, objects)] += 1
                    continue
                (box,) = boxes
                verdict = verdict_of(text, box, size, objects)
                by_run[run.name][verdict] += 1
                if run.name == run.kind:
                    rules = by_rule.setdefault(run.kind, {})
                    rules.setdefault(rule, Counter())[verdict] += 1
                if verdict == 'right':
                    ious = [iou(tuple(box), item.box) for item in objects]
                    found.add((image, ious.index(max(ious))))
            everything = sum(len(objects) for _, objects in truth.values())
            reached[run.name] = len(found) / everything
        logging.info('Errors of the models: %s', ErrorRates())
        logging.info('%s', table('source', by_run))
        title = 'source: rule, several targets or none'
        logging.info('%s', table(title, dict(sorted(sets.items())), SET_VERDICTS))
        logging.info('\n| source | objects with a right label |\n|---|---|')
        for name, share in reached.items():
            logging.info('| %s | %.3f |', name, share)
        for kind, rules in by_rule.items():
            logging.info('%s', table(f'{kind}: rule', dict(sorted(rules.items()))))


if __name__ == '__main__':
    main()
