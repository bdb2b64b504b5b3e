"""Small COCO files for the tests of the generators' inputs."""

import json

NAMES = ('person', 'car', 'dog')


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def instances(images, **more):
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=640, height=480) for i in images
        ],
        categories=[dict(id=n + 1, name=name) for n, name in enumerate(NAMES)],
        **more,
    )


def detection(image, **more):
    entry = dict(image_id=image, category_id=1, bbox=[10, 20, 200, 300], score=0.9)
    return dict(entry, **more)


def spread(images, seed=0, most=6):
    """Made-up detections, a few for each image."""
    import numpy as np

    rng = np.random.default_rng(seed)
    found = []
    for image in images:
        for _ in range(int(rng.integers(0, most))):
            corner, side = rng.uniform(0, 300, 2), rng.uniform(60, 300, 2)
            found.append(
                detection(
                    image,
                    category_id=int(rng.integers(1, 4)),
                    bbox=[round(float(v), 2) for v in (*corner, *side)],
                    score=round(float(rng.uniform(0.1, 1)), 3),
                )
            )
    return found
