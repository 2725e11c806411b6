"""Doubles an image and convolves it, in four ninths of the work of doing one after the other."""

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


@keras.saving.register_keras_serializable("nanotox")
class UpConv2D(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """`UpSampling2D()` (nearest), then `Conv2D(filters, 3, padding="same")`: same weights, same outputs.

    A doubled image is the image with zeros between its pixels, under a 2x2 box. So box and kernel are one 4x4
    kernel, and the two layers one transposed convolution of stride 2, which never multiplies the zeros.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:  # noqa: ANN401  # those of any Keras layer
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the (3, 3, channels, filters) kernel and the bias."""
        self.kernel = self.add_weight(
            shape=(3, 3, input_shape[-1], self.filters), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, images: "tf.Tensor") -> "tf.Tensor":
        """Return (N, 2 h, 2 w, filters) of (N, h, w, channels)."""
        import tensorflow as tf

        n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
        shifts = [(i, j) for i in (0, 1) for j in (0, 1)]
        kernel = tf.add_n([tf.pad(self.kernel, [[i, 1 - i], [j, 1 - j], [0, 0], [0, 0]]) for i, j in shifts])
        # a transposed convolution runs its kernel backward
        kernel = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
        shape = (n, 2 * height, 2 * width, self.filters)
        return tf.nn.conv2d_transpose(images, kernel, shape, 2, "SAME") + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        n, height, width, _ = input_shape
        return n, 2 * (height or 0), 2 * (width or 0), self.filters

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made from."""
        return {**super().get_config(), "filters": self.filters}
