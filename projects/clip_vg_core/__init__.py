"""What of CLIP-VG needs no PyTorch: labels, selection, label rules, measures.

NumPy, Pillow and small pure libraries are enough, and it is imported in a fraction of a
second. :mod:`projects.clip_vg` builds on it, and it knows nothing of that.
"""
