"""Random smooth displacement fields."""

from math import pi

import numpy as np

SHAPE = (37, 53)


def smooth(seed, shape=SHAPE, size=2.0):
    """Random displacements (2, h, w) of a few waves, whose slopes stay below one half."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape, dtype=float)
    waves = [
        sum(
            rng.uniform(-1, 1) * np.sin(2 * pi * (a * x / shape[1] + b * y / shape[0]) + rng.uniform(0, 6))
            for a, b in rng.uniform(-1, 1, (3, 2))
        )
        for _ in range(2)
    ]
    return size * np.stack(waves) / 3
