"""Pretrain the tiny CLIP of the toy data set on images of its own.

    python tools/pretrain_tiny_clip.py --out tiny_clip.safetensors

The two towers learn as in region-text pretraining: patches of an object agree with
the names that fit it ("red one", "small red star") and disagree with those that do
not, and tell the object's box. The images are drawn from another seed than any
data set, and no name says a place or a relation: those the detector has to learn,
on top of the frozen towers. The result is an ordinary CLIP in open_clip's layout.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from projects.clip_vg_core.utils.atomic import replacing
from projects.clip_vg_core.utils.command_line import parse_command, run_command

if TYPE_CHECKING:
    from torch import Tensor, nn

    from projects.clip_vg.synthetic.expressions import Shape

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
SEED = 7_000_000  # no data set is drawn from it


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--config',
        default='configs/clip_vg_synthetic.py',
        help='config whose model has the architecture of the towers (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--out',
        default='projects/clip_vg/assets/tiny_clip.safetensors',
        metavar='FILE',
        help='weights to write (default: %(default)s)',
    )
    for option, default, what in (
        ('--num-images', 6000, 'number of images to draw'),
        ('--steps', 6000, 'number of training steps'),
        ('--batch-size', 32, 'images in a batch'),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f'{what} (default: %(default)s)'
        )
    parser.add_argument(
        '--lr',
        type=float,
        default=1e-3,
        help='highest learning rate (default: %(default)s)',
    )
    return parse_command(parser, 'tools/pretrain_tiny_clip.py')


def names_of(item: Shape) -> list[str]:
    """Names of an object, from vague to full."""
    return [
        item.shape,
        f'{item.color} one',
        f'{item.color} {item.shape}',
        f'{item.size} {item.shape}',
        f'{item.size} {item.color} {item.shape}',
    ]


def make_images(count: int, side: int) -> tuple[Tensor, list[list[Shape]]]:
    """Images in a square of ``side`` (uint8, RGB), and their objects in it."""
    import torch

    from projects.clip_vg.synthetic.expressions import Shape
    from projects.clip_vg.synthetic.scenes import draw, sample_scene

    drawn = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    scenes = []
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        size, objects = sample_scene(rng)
        scale = side / max(size)
        width, height = (round(edge * scale) for edge in size)
        left, top = rng.integers(side - width + 1), rng.integers(side - height + 1)
        image = draw(size, objects, rng).resize((width, height), 2)
        drawn[index, :, top : top + height, left : left + width] = torch.from_numpy(
            np.array(image)
        ).permute(2, 0, 1)
        shift = np.array([left, top, left, top])
        scenes.append(
            [
                Shape(o.shape, o.color, o.size, tuple(np.array(o.box) * scale + shift))
                for o in objects
            ]
        )
    return drawn, scenes


def patch_objects(scene: list[Shape], grid: int, side: int) -> np.ndarray:
    """For every patch, the object that its centre lies in, or -1."""
    centers = (np.arange(grid) + 0.5) * side / grid
    owner = np.full((grid, grid), -1)
    for index, item in enumerate(scene):
        left, top, right, bottom = item.box
        inside = np.outer(
            (centers > top) & (centers < bottom), (centers > left) & (centers < right)
        )
        owner[inside] = index
    return owner.ravel()


def loss_of(
    clip: Any,
    box_head: nn.Module,
    images: Tensor,
    scenes: list[list[Shape]],
    rng: np.random.Generator,
) -> Tensor:
    """Agreement of patches and names, and boxes of patches, over one batch."""
    import open_clip
    import torch
    from torch.nn import functional as F
    from torchvision.ops import box_convert, generalized_box_iou_loss

    visual = clip.visual
    tokens = visual.transformer(visual._embeds(images))[:, 1:]
    grid, side = visual.grid_size[0], visual.image_size[0]
    objects = [item for scene in scenes for item in scene]
    firsts = np.cumsum([0] + [len(scene) for scene in scenes[:-1]])
    owners = [
        np.where((own := patch_objects(scene, grid, side)) >= 0, own + first, -1)
        for scene, first in zip(scenes, firsts, strict=True)
    ]
    owner = torch.from_numpy(np.concatenate(owners))
    texts = sorted({str(rng.choice(names_of(item))) for item in objects})
    fits = torch.tensor([[t in names_of(item) for t in texts] for item in objects])
    target = F.pad(fits.float(), (0, 0, 0, 1))[owner]  # row -1: the background

    words = clip.encode_text(open_clip.tokenize(texts), normalize=True)
    patches = F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1).flatten(0, 1)
    logits = clip.logit_scale.exp() * patches @ words.T + clip.logit_bias
    agreement = F.binary_cross_entropy_with_logits(logits, target) * len(texts) / 4

    inside = owner >= 0
    boxes = torch.tensor([item.box for item in objects], dtype=torch.float32) / side
    truth = boxes[owner[inside]]
    guess = box_head(tokens.flatten(0, 1)[inside]).sigmoid()
    corners = box_convert(guess, 'cxcywh', 'xyxy')
    return (
        agreement
        + 5 * F.l1_loss(corners, truth)
        + generalized_box_iou_loss(corners, truth, reduction='mean')
    )


def seen_tokens(count: int = 3000) -> Tensor:
    """Ids of all tokens that expressions of these images are made of."""
    import open_clip

    from projects.clip_vg.synthetic.expressions import describe
    from projects.clip_vg.synthetic.scenes import sample_scene

    texts: set[str] = set()
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        size, objects = sample_scene(rng)
        texts.update(text for _, text, _ in describe(size, objects, rng))
    return open_clip.tokenize(sorted(texts)).unique()


def main() -> None:
    """Pretrain and write the weights in half precision."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    args = parse_args()
    import open_clip
    import torch
    from mmengine.config import Config
    from safetensors.torch import save_file
    from torch import nn

    rgb_mean, rgb_std = (torch.tensor(rgb).view(3, 1, 1) for rgb in (MEAN, STD))
    arch = Config.fromfile(args.config).model.visual_encoder.arch.to_dict()
    torch.manual_seed(0)
    clip: Any = open_clip.CLIP(**arch, init_logit_bias=-5.0)
    for block in clip.visual.transformer.resblocks:
        nn.init.normal_(block.attn.in_proj_weight, std=0.02)
    side = clip.visual.image_size[0]
    box_head = nn.Linear(clip.visual.conv1.out_channels, 4)
    drawn, scenes = make_images(args.num_images, side)
    weights = [
        p for p in (*clip.parameters(), *box_head.parameters()) if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(weights, args.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps)
    rng = np.random.default_rng(0)
    start, losses = time.time(), []
    for step in range(1, args.steps + 1):
        chosen = rng.choice(len(scenes), args.batch_size, replace=False)
        images = (drawn[chosen].float() - rgb_mean) / rgb_std
        loss = loss_of(clip, box_head, images, [scenes[i] for i in chosen], rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 200 == 0:
            mean, seconds = np.mean(losses[-200:]), time.time() - start
            logging.info('step %d, loss %.3f, %.0f s', step, mean, seconds)
    state = {key: value.half().contiguous() for key, value in clip.state_dict().items()}
    # Embeddings of words that were never trained compress to nothing as zeros.
    unseen = torch.ones(len(state['token_embedding.weight']), dtype=torch.bool)
    unseen[seen_tokens()] = False
    state['token_embedding.weight'][unseen] = 0
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(args.out)) as partial:
        save_file(state, partial, metadata=dict(quick_gelu='true'))
    logging.info('%s: %.1f MB', args.out, Path(args.out).stat().st_size / 1e6)


if __name__ == '__main__':
    run_command(main)
