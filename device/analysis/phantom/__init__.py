"""Dishes that never were, rendered from physics with exact truth.

A scalar model of thin objects: halo, shade-off and contrast reversal come out by themselves; true scattering
in thick spheres does not, so the fringes of round cells differ from real ones.
"""

from device.analysis.phantom.render import render_field, render_plate, render_well
from device.analysis.phantom.settings import (
    Culture,
    Optics,
    default_optics,
    training_ranges,
    vary,
    vary_culture,
)
from device.analysis.phantom.truth import Phantom, TrueObject

__all__ = [
    "Culture",
    "Optics",
    "Phantom",
    "TrueObject",
    "default_optics",
    "render_field",
    "render_plate",
    "render_well",
    "training_ranges",
    "vary",
    "vary_culture",
]
