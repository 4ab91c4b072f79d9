"""How compiled kernels are kept, loaded and run, on one thread or more; nothing here imports Numba.

A process whose kernels are in the cache never imports it: half of what its first fit would take.
"""
