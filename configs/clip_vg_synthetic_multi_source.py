"""The built-in toy data set with pseudo-labels of three sources.

docs/tutorial_without_labels.md makes them; val and test have labels.
"""

_base_ = './clip_vg_synthetic.py'

sources = ['template', 'relation', 'caption']
train_dataloader = dict(
    dataset=dict(
        data_root='data/photographs/',
        ann_file=[f'pseudo/{source}.jsonl' for source in sources],
        split_file=None,
        split=None,
        source=sources,
    )
)
val_dataloader = dict(dataset=dict(data_root='data/labelled/'))
test_dataloader = dict(dataset=dict(data_root='data/labelled/'))
del sources
