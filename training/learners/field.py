"""Table 2's trunk at a quarter of its width, pooled over the picture: for tiles of whole fields."""

import keras
from keras import layers

from device.analysis.crops import TILE_PX

FILTERS = (8, 16, 32)


def build(n_classes: int, step_noise: float = 0.0) -> keras.Model:
    """Return the untrained network.

    Parameters
    ----------
    n_classes : int
        Logits, > 1.
    step_noise : float
        Standard deviation of the noise on activations of 0 to 6 in training, >= 0.

    Returns
    -------
    keras.Model
        Outputs `logits` (N, n_classes) and `features` (N, 32). No softmax: it stays in float on the host.

    Notes
    -----
    The features are means over the picture, so that they grow with how many cells of a kind are there, and
    the logits are linear in them: the mean of the logits of tiles is the logit of the field. 4.1 M
    multiplications a tile. ReLU6 and noise as in `station`. Without the normalization, which the conversion
    folds into the convolutions, it learns slowly: means over faint pictures are small.
    """
    image = keras.Input((TILE_PX, TILE_PX, 1), name="crop")
    x = image
    for filters in FILTERS:
        if x is not image:
            x = layers.GaussianNoise(step_noise)(layers.MaxPooling2D(2, padding="same")(x))
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    density = layers.Conv2D(n_classes, 1, activation="relu", bias_initializer="ones", name="density")(x)
    logits = layers.GlobalAveragePooling2D(name="logits")(density)
    return keras.Model(image, {"logits": logits, "features": features}, name="field")
