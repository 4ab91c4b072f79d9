"""Numerical regression testing: whether results are the same, and where they parted if not."""
