"""What is trained on and what judges are different images of different groups."""

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError
from training.dataset.samples import Samples
from training.dataset.symmetry import symmetries


def find_copies_of(known: Samples, judged: Samples) -> NDArray[np.bool_]:
    """Return (N,) which images of `judged` are those of `known`, turned, mirrored or as they are."""
    images = {image.tobytes() for image in known.x}
    turned = zip(*symmetries(judged.x), strict=True)
    return np.array([any(x.tobytes() in images for x in several) for several in turned], bool)


def require_apart(known: Samples, judged: Samples) -> None:
    """Raise if generated images, or groups or images (turned or not) of `known`, are among those that judge.

    Raises
    ------
    ConfigError
        With what was found of each kind.
    """
    faults = []
    if judged.source == "generated" or (judged.group == "generated").any():
        faults.append("generated images")
    shared = sorted(set(known.group.tolist()) & set(judged.group.tolist()))
    if shared:
        faults.append(f"{len(shared)} groups that are trained on ({', '.join(shared[:3])})")
    n_copies = int(find_copies_of(known, judged).sum())
    if n_copies:
        faults.append(f"{n_copies} copies of images that are trained on")
    if faults:
        raise ConfigError(
            f"the samples that judge hold {' and '.join(faults)}; expected real images of groups of their "
            "own (check the splits with `nanotox-train data check`)"
        )
