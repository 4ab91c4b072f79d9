"""What fastnet is measured against: one adapter a file, all with the interface of `fastnet.bench.peers.base`."""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.bench.peers.base import Peer
from fastnet.bench.peers.c_loops import CLoops, CLoopsFastMath
from fastnet.bench.peers.fann import Fann
from fastnet.bench.peers.fastnet_backends import Numba, NumpyBackend, Specialized
from fastnet.bench.peers.jax_jit import Jax
from fastnet.bench.peers.numpy_loop import NumpyLoop
from fastnet.bench.peers.onnx_runtime import OnnxRuntime
from fastnet.bench.peers.pytorch import PyTorch, TorchCompile
from fastnet.bench.peers.scikit_learn import ScikitLearn
from fastnet.validation import check_choice

#: All adapters by name, in the order of tables.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Numba(),
        Specialized(),
        NumpyLoop(),
        NumpyBackend(),
        ScikitLearn(),
        PyTorch(),
        TorchCompile(),
        Jax(),
        Fann(),
        CLoops(),
        CLoopsFastMath(),
        OnnxRuntime(),
    )
}


def get_peers(names: Sequence[str] | None) -> list[Peer]:
    """The peers of these names, and fastnet and the NumPy loop, to which ratios are taken; None means all.

    Raises
    ------
    ValueError
        If there is no peer of some name.
    """
    if names is None:
        return list(PEERS.values())
    wanted = {"numba", "numpy-loop", *(check_choice("peers", name, tuple(PEERS)) for name in names)}
    return [peer for name, peer in PEERS.items() if name in wanted]
