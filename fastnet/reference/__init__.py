"""The arithmetic as NumPy code that is meant to be read: the specification, and the baseline."""
