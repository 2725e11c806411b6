"""Table 2's three convolutions, narrower, that tell where live and dead cells are: for tiles of fields."""

import keras
from keras import layers

from device.analysis.crops import TILE_PX

FILTERS = (8, 24, 48)


def build(n_classes: int, step_noise: float = 0.0) -> keras.Model:
    """Return the untrained network, of 48 features.

    Notes
    -----
    The logits are the means of a map of cells that speak for each class, and it is taught that map. The mean
    of the logits of tiles is the logit of the field. 7 M multiplications a tile. The first
    convolution walks in steps of two and the last pooling is left out, so that a place of the map is 5 um
    wide and sees 22 um. ReLU6 and noise as in `station`.
    """
    image = keras.Input((TILE_PX, TILE_PX, 1), name="crop")
    x = image
    for filters in FILTERS:
        if filters == FILTERS[-1]:
            x = layers.MaxPooling2D(2, padding="same")(x)
        strides = 2 if x is image else 1
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.GaussianNoise(step_noise)(layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x)))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    density = layers.Conv2D(n_classes, 1, activation="relu", bias_initializer="ones", name="density")(x)
    logits = layers.GlobalAveragePooling2D(name="logits")(density)
    return keras.Model(image, {"logits": logits, "features": features}, name="field")
