"""Training steps in two processes without a search for unused parameters."""

import copy
import multiprocessing
import os

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

from projects.clip_vg_core.utils.safe_torch import load_torch

from ..helpers.configs import model_config
from ..helpers.models import IMAGES, initialised, make_batch

CONFIDENCE = dict(type='GroundingConfidenceHead', neg_ratio=0.5)
KINDS = {
    'official': dict(visual_encoder=dict(train_pos_embed=True)),
    'frozen': {},
    'confidence': dict(confidence_head=CONFIDENCE),
    'confidence alone': dict(confidence_head=dict(CONFIDENCE, freeze_detector=True)),
    'several queries': dict(confidence_head=CONFIDENCE, num_queries=3),
    'trained towers, recomputed': dict(
        visual_encoder=dict(frozen=False, with_cp=True),
        text_encoder=dict(frozen=False, with_cp=True),
        fusion=dict(with_cp=True),
    ),
}
STEPS = 3
# Equally many expressions for both processes, so that their mean is the batch's.
PAIRS = [(place, texts[:1]) for place, texts in IMAGES]


def make_model(kind):
    """A detector without dropout, of one seed."""
    options = copy.deepcopy(KINDS[kind])
    own = {
        k: options.pop(k) for k in ('confidence_head', 'num_queries') if k in options
    }
    cfg = model_config(**options)
    cfg['fusion']['dropout'] = 0.0
    torch.manual_seed(0)
    return initialised(MODELS.build(dict(cfg, **own))).train()


def batches(part=slice(None)):
    """A part of the batch of each step; in the second, no pair is a negative one."""
    made = []
    torch.manual_seed(1)
    for step in range(STEPS):
        images = PAIRS
        if step == 1:  # expressions of all images have a referent in each
            images = [(place, ['left man']) for place, _ in PAIRS]
        made.append({key: items[part] for key, items in make_batch(images).items()})
    return made


def train(model, given):
    """Steps of MMEngine; all trained weights in a row."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = OptimWrapper(torch.optim.SGD(trained, lr=0.05))
    for batch in given:
        model.train_step(batch, optimizer)
    return torch.cat([p.detach().flatten() for p in trained])


def _train_as(rank, folder):
    """One of two processes: each kind with a static graph."""
    torch.set_num_threads(1)  # OpenMP's threads are not there after a fork
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    weights = {}
    for kind in KINDS:
        model = MMDistributedDataParallel(
            make_model(kind), find_unused_parameters=False, static_graph=True
        )
        weights[kind] = train(model, batches(slice(rank, None, 2)))
    torch.save(weights, folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """The weights of both processes."""
    folder = tmp_path_factory.mktemp('ranks')
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_train_as, args=(rank, folder)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_torch(folder / f'{rank}.pt') for rank in (0, 1)]


@pytest.mark.parametrize('kind', KINDS)
def test_a_static_graph_ends_with_the_same_weights_in_both(ranks, kind):
    one, other = (weights[kind] for weights in ranks)
    assert torch.equal(one, other)
    model = make_model(kind)
    first = torch.cat(
        [p.detach().flatten() for p in model.parameters() if p.requires_grad]
    )
    assert not torch.equal(one, first)


@pytest.mark.parametrize('kind', ['official', 'frozen', 'trained towers, recomputed'])
def test_they_are_those_of_one_process_with_the_whole_batch(ranks, kind):
    alone = train(make_model(kind), batches())
    torch.testing.assert_close(ranks[0][kind], alone, atol=1e-6, rtol=1e-5)
