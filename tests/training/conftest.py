"""What several training tests need: fields of blobs, and TensorFlow without its graphs."""

import numpy as np
import pytest

from device.images import write_png
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, TrueCell, write_dataset


@pytest.fixture(scope="session")
def draw_blobs():
    """A function of a folder and the split of each field that writes dark live and bright dead blobs."""

    def draw(folder, splits):
        (folder / "images").mkdir(parents=True)
        rows, cols = np.mgrid[:120, :160]
        entries, cells = [], {}
        for i, split in enumerate(splits):
            image, boxes = np.random.default_rng(i).normal(120, 3, (120, 160)), []
            for k, (row, col) in enumerate([(30, 30), (30, 110), (85, 40), (90, 120)]):
                image += (70 if k % 2 else -70) * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 50)
                boxes.append(TrueCell("dead" if k % 2 else "live", col - 9, row - 9, col + 9, row + 9))
            write_png(folder / f"images/{i}.png", np.clip(image, 0, 255).astype(np.uint8))
            entries.append(Entry(f"images/{i}.png", "", f"well-{i}", split))
            cells[f"images/{i}.png"] = tuple(boxes)
        info = DatasetInfo(Scale(0.65, "measured"), "brightfield", "drawn", "Apache-2.0", assay="suspension")
        write_dataset(folder, info, entries, cells)
        return folder

    return draw


@pytest.fixture
def few_steps():
    """Steps of training run as they are written: a graph of them takes as long as many steps to make."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
