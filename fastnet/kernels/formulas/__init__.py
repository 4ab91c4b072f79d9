"""Formulas over `fastnet.kernels.simd.Lanes`: what happens in one lane. Loops stand outside, in the kernels."""
