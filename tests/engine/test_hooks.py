"""Our hooks together: each key of a checkpoint has one writer."""

import re

import pytest
from mmdet.registry import HOOKS
from mmengine.runner import Runner

from ..helpers import ROOT
from ..helpers.configs import runner_config

OURS = {
    name: hook
    for name, hook in HOOKS.module_dict.items()
    if hook.__module__.startswith('projects.clip_vg.')
}
# MMEngine's; one of our hooks makes them smaller.
MMENGINES = {'meta', 'message_hub', 'state_dict', 'ema_state_dict', 'optimizer'}


@pytest.fixture
def runner(shapes, sources, tmp_path):
    """A runner with all of our hooks, before its training."""
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.default_hooks.sampler_seed = None
    cfg.custom_hooks = [dict(type='EMAHook'), *(dict(type=name) for name in OURS)]
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    return runner


def test_no_two_write_the_same_key(runner):
    writers = {}
    checkpoint = dict(state_dict=runner.model.state_dict())
    known = runner.message_hub.runtime_info
    for hook in runner.hooks:
        before, infos = dict(checkpoint), set(known)
        hook.before_save_checkpoint(runner, checkpoint)
        if type(hook) in OURS.values():
            hook.after_val_epoch(runner, {})
        for key in checkpoint:
            if key not in before or before[key] is not checkpoint[key]:
                writers.setdefault(key, set()).add(type(hook).__name__)
        for key in set(known) - infos:
            writers.setdefault(f'message_hub.{key}', set()).add(type(hook).__name__)
    ours = {key: names & set(OURS) for key, names in writers.items()}
    assert all(len(names) <= 1 for names in ours.values()), ours
    # Without EMAHook's, MMEngine writes these itself.
    others = {key for key, names in writers.items() if names - set(OURS)}
    assert {key for key in others if ours[key]} <= MMENGINES
    assert ours['sampler'] == ours['message_hub.validated_epoch'] == {'ExactResumeHook'}
    assert ours['reliability'] == {'PseudoLabelReliabilityHook'}
    assert ours['state_dict'] == ours['ema_state_dict'] == {'SlimCheckpointHook'}


def test_each_says_its_priority_as_documented():
    page = (ROOT / 'docs/api/engine.md').read_text()
    documented = dict(re.findall(r'^\| `(\w+Hook)` \| `(\w+)` \|', page, re.MULTILINE))
    assert documented == {name: vars(hook)['priority'] for name, hook in OURS.items()}


def test_the_selection_comes_back_without_the_hook_of_the_sampler(
    shapes, sources, tmp_path
):
    """As with MMEngine's DistSamplerSeedHook, and from an earlier checkpoint."""

    def build(work_dir, **changes):
        cfg = runner_config(shapes, sources, tmp_path / work_dir, **changes)
        cfg.default_hooks.sampler_seed = dict(type='DistSamplerSeedHook')
        cfg.custom_hooks = [dict(type='PseudoLabelReliabilityHook')]
        runner = Runner.from_cfg(cfg)
        (hook,) = (h for h in runner.hooks if type(h).__name__ in OURS)
        return runner, hook, runner.train_loop.dataloader.sampler

    runner, hook, sampler = build('one')
    chosen = list(range(0, len(sampler.dataset), 2))
    sampler.set_selection(chosen)
    checkpoint = {}
    hook.before_save_checkpoint(runner, checkpoint)
    state = checkpoint['reliability'].pop('sampler')
    earlier = dict(checkpoint, sampler=state)
    now = dict(reliability=dict(checkpoint['reliability'], sampler=state))
    for name, saved in dict(now=now, earlier=earlier).items():
        for resume, expected in ((True, chosen), (False, None)):
            other, its_hook, its = build(f'{name} {resume}', resume=resume)
            its_hook.after_load_checkpoint(other, saved)
            assert its.selection.tolist() == (expected or list(range(len(its.dataset))))
