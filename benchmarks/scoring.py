"""Reliability of all labels, images decoded included: the published way against ours.

    python benchmarks/scoring.py --ann-file FILE --split-file FILE --images DIR

ViT-B/16 at 224 with random weights. The published way loads, resizes and encodes the
image of every label anew; ours does so once for all labels of an image. `stored`: the
visual tokens are in a `visual_token_dir`, of an earlier measurer or training run.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from data import add_label_options, fill_in_synthetic, open_dataset
from inference import build_model
from machine import add_device_option, alternate, describe
from mmengine.dataset import pseudo_collate
from published_path import PublishedPath

from projects.clip_vg.datasets import RefExpDataset
from projects.clip_vg.engine.scoring import score_all
from projects.clip_vg.models import CLIPVG
from projects.clip_vg.models.clip_vg import patch_padding
from projects.clip_vg.models.data_preprocessor import pixel_padding
from projects.clip_vg.models.predictions import to_original


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_label_options(parser)
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='images in a batch (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=1,
        help='timed rounds of each way (default: %(default)s)',
    )
    add_device_option(parser)
    return parser.parse_args()


def published_way(
    model: CLIPVG, dataset: RefExpDataset, batch_size: int
) -> Callable[[], np.ndarray]:
    """Boxes of all labels, xyxy in pixels, one image for each."""
    slow = PublishedPath(model).eval()

    @torch.inference_mode()
    def score() -> np.ndarray:
        found = []
        for start in range(0, len(dataset), batch_size):
            rows = range(start, min(start + batch_size, len(dataset)))
            batch = pseudo_collate([dataset[row] for row in rows])
            data = model.data_preprocessor(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            padding = patch_padding(
                pixel_padding(samples, inputs), model.visual_encoder.grid_size
            )
            center = slow(inputs, padding, [sample.text for sample in samples])
            corners = torch.cat(
                [center[:, :2] - center[:, 2:] / 2, center[:, :2] + center[:, 2:] / 2],
                1,
            )
            for box, sample in zip(corners.clamp(0, 1) * 224, samples, strict=True):
                found.append(to_original(box[None], [sample], [1])[0])
        return torch.stack(found).cpu().numpy()

    return score


def main() -> None:
    """Measure, print."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill_in_synthetic(args, folder, count=32)
        model = build_model().to(args.device)
        dataset = open_dataset(args)
        predictions: dict[str, np.ndarray] = {}
        slow = published_way(model, dataset, args.batch_size)

        def published() -> None:
            predictions['published'] = slow()

        def ours() -> None:
            predictions['ours'] = score_all(
                model, dataset, batch_size=args.batch_size, grouped=True
            )[1]

        def stored() -> None:
            predictions['stored'] = score_all(
                other, dataset, batch_size=args.batch_size, grouped=True
            )[1]

        other = build_model(visual_token_dir=f'{folder}/tokens').to(args.device)
        other.visual_encoder.requires_grad_(False)  # positions, too
        stored()
        ways = dict(published=published, ours=ours, stored=stored)
        seconds = alternate(ways, args.rounds, 0)
    images = len(np.unique(dataset.table.image_index))
    logging.info('%s', describe(args.device))
    logging.info('%d labels of %d images', len(dataset), images)
    for name, taken in seconds.items():
        logging.info(
            '%-9s: %6.1f labels a second, %.1f x',
            *(name, len(dataset) / taken, seconds['published'] / taken),
        )
    for name in ('ours', 'stored'):
        apart = np.abs(predictions[name] - predictions['published']).max()
        logging.info('largest difference of boxes, %s: %.4f pixels', name, apart)


if __name__ == '__main__':
    main()
