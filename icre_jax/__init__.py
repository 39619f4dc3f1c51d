"""ICRE for visible-infrared person re-identification, in JAX and Flax."""

__version__ = "0.1.0"
