"""Constants must make sense."""

from dataclasses import fields

import pytest

from projects.clip_vg.engine.labelling.maker import KINDS


@pytest.mark.parametrize('kind', KINDS.values())
def test_counts_and_shares_out_of_range_are_refused(kind):
    for field in fields(kind):
        if isinstance(field.default, bool):
            continue
        for value in (-1, float('nan')):
            with pytest.raises(ValueError, match=f'{field.name}='):
                kind(**{field.name: value})
    kind(**{field.name: field.default for field in fields(kind)})


def test_limits():
    template, caption = KINDS['template'], KINDS['caption']
    template(max_iou=1, min_area=0, min_spread_pixels=300.0, seed=0)
    caption(captions_per_image=0)
    for wrong in (dict(max_iou=1.5), dict(objects=0), dict(min_area=5)):
        with pytest.raises(ValueError, match='expected a number'):
            template(**wrong)
