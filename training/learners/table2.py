"""Table 2 of Saini et al. (2020): three convolutions, 355,202 parameters with two classes."""

import keras
from keras import layers

FILTERS = (32, 64, 128)
N_FEATURES = 128
SLOPE = 0.1
"""Of LeakyReLU; the paper does not state it, 0.1 is common for this network."""


def build(n_classes: int, _step_noise: float = 0.0) -> keras.Model:
    """Return the untrained network, of 128 features. It knows no noise: a second argument changes nothing.

    Notes
    -----
    7x7 pools to 4x4 as the table prints it only with `padding="same"`.
    """
    image = keras.Input((28, 28, 1), name="crop")
    x = image
    for filters in FILTERS:
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.LeakyReLU(negative_slope=SLOPE)(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Dense(N_FEATURES)(layers.Flatten()(x))
    features = layers.LeakyReLU(negative_slope=SLOPE, name="features")(x)
    logits = layers.Dense(n_classes, name="logits")(features)
    return keras.Model(image, {"logits": logits, "features": features}, name="table2")
