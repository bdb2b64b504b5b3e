"""What a search will do and cost, before it starts."""

from projects.clip_vg_core.curriculum.search import STRATEGIES as SEARCHES
from projects.clip_vg_core.curriculum.search import number_of_trials

from .driver import SelfPaced

__all__ = ['STRATEGIES', 'describe_plan']

STRATEGIES = (*SEARCHES, 'valley', 'online')


def describe_plan(search: SelfPaced) -> str:
    """The plan of a search and its cost in training runs.

    Args:
        search (SelfPaced): Not started.

    Returns:
        str: Several lines.
    """
    settings, count = search.settings, len(search.sources)
    lines = [
        f'{"SSA" if count == 1 else "MSA"}, strategy {settings.strategy}, criterion '
        f'{settings.criterion} ({search.cfg.default_hooks.checkpoint.save_best}), in '
        f'{search.work_dir}',
        'Sources, from simple to complex'
        + (
            ':'
            if settings.order
            else f' (by the mean number of {search.counted}; --order says otherwise):'
        ),
    ]
    lines += [
        f'  {name}: {search.files[name].count:,} labels, '
        f'{search.complexity[name]:.2f} {search.counted}'
        for name in search.sources
    ]
    fewest = most = 1
    models = len(search.measurers.models())
    if settings.agreement:
        lines.append("CLIP's agreement of crops and expressions scores all sources")
    elif settings.strategy != 'online':
        lines.append(f'{models} trainings of measurers, each then scores all sources')
    if settings.strategy == 'online':
        lines.append('1 training that scores its labels twice and selects')
    else:
        if settings.strategy == 'valley':
            lines.append('1 training on what lies above the valleys')
        else:
            low, high = number_of_trials(
                settings.strategy, settings.start, settings.step
            )
            measurers = len(search.measurers.names[search.sources[0]])
            compared = measurers - 1
            lines.append(
                f'{compared + low} to {compared + high} trainings for each source: '
                f'{measurers} measurers at {settings.start:g}, then the thresholds '
                '(fewer where too few labels are left)'
            )
            fewest, most = count * (compared + low), count * (compared + high)
        fewest, most = fewest + models, most + models
    span = f'{fewest}' if fewest == most else f'{fewest} to {most}'
    lines.append(
        f'In all {span} trainings of {search.cfg.train_cfg.max_epochs} epochs.'
    )
    return '\n'.join(lines)
