"""Files of weights: CLIP's, the official implementation's, and those of training runs.

No module of this folder imports :mod:`projects.clip_vg.models`: the towers load CLIP
from here, and a checkpoint is compared with whatever model it is given.
"""
