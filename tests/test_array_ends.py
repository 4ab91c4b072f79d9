"""Kernels touch nothing beyond users' arrays: each ends where a page begins that nobody may touch."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are protected by Linux's mprotect")

GUARDED = """
import ctypes, mmap, sys
import numpy as np
import fastnet
from fastnet import Network, kernels

fastnet.set_threads(2)
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
memory = []

def guarded(values):
    pages = -(-values.nbytes // mmap.PAGESIZE)
    memory.append(mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE))
    everything = np.frombuffer(memory[-1], np.uint8)
    end = pages * mmap.PAGESIZE
    assert protect(everything.ctypes.data + end, mmap.PAGESIZE, 0) == 0
    array = everything[end - values.nbytes : end].view(values.dtype).reshape(values.shape)
    array[...] = values
    return array

dtype, random = sys.argv[1], np.random.default_rng(0)
"""

TRAININGS = """
for sizes in ([3, 4, 1], [3, 5, 3], [17, 40, 10], [8, 64, 64, 2], [5, 100, 33], [100, 19]):
    for n_samples, batch_size in ((1, None), (7, 3), (300, None), (530, 100)):
        X = guarded(random.standard_normal((n_samples, sizes[0])).astype(dtype))
        y = guarded(random.random((n_samples, sizes[-1])).astype(dtype))
        weight = guarded(random.uniform(0.5, 1, n_samples).astype(dtype))
        for specialize in {False, sizes[1] < 6 and n_samples < 10}:
            network = Network(sizes, "tanh", dtype=dtype).initialize(seed=0)
            settings = dict(loss="squared_error", epochs=2, batch_size=batch_size, specialize=specialize)
            network.fit(X, y, sample_weight=weight, shuffle=batch_size is not None, **settings)
            assert np.isfinite(network.parameters).all()
print("done")
"""

PREDICTIONS = """
for sizes in ([3, 4, 1], [17, 40, 10], [64, 100, 10], [30, 100, 3], [5, 100, 33]):
    network = Network(sizes, "relu", "softmax" if sizes[-1] > 1 else "identity", dtype=dtype).initialize(seed=0)
    network = network.initialize(seed=1, scheme="glorot_uniform")
    for n_samples in (1, 15, 16, 17, 300, 5000):
        X = guarded(random.standard_normal((n_samples, sizes[0])).astype(dtype))
        out = guarded(np.empty((n_samples, sizes[-1]), dtype))
        network.predict(X, out=out)
        assert np.isfinite(out).all()
        kernels.forward(network.layout, network.parameter_buffer, X, out)
print("done")
"""

FUNCTIONS = """
for n in (1, 7, 8, 15, 16, 17, 33, 100, 1000):
    x = guarded(random.uniform(0.1, 2, n).astype(dtype))
    for name in ("exp", "expm1", "log", "sigmoid", "tanh", "softplus", "normal_density", "normal_cdf", "flush"):
        getattr(kernels, name)(x)
    kernels.fma(x, x, x)
for n, k, m in ((1, 1, 1), (3, 5, 2), (7, 17, 9), (33, 20, 40), (270, 6, 65)):
    a, b, c = (guarded(random.random(shape).astype(dtype)) for shape in ((n, k), (k, m), (n, m)))
    kernels.matmul(a, b)
    kernels.affine(a, b, guarded(c[0]))
    kernels.back_projection(c, b)
    kernels.weight_gradient(a, c)
    kernels.bias_gradient(c)
    kernels.weighted_row_sum(c, guarded(c[:, 0]))
    kernels.transpose(a)
print("done")
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("code", [TRAININGS, PREDICTIONS, FUNCTIONS], ids=["trainings", "predictions", "functions"])
def test_nothing_is_touched_beyond_an_array(code: str, dtype: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", GUARDED + code, dtype],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)
