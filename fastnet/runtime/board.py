"""What the threads of a training share: how many have arrived where they wait, and what part of the work is whose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The regions of a step, each of which has its own shares.
(FIRST_REGION, SECOND_REGION) = range(2)
N_REGIONS = 2
#: What two threads count that hand something on and back (`fastnet.kernels.relay`), each in a cache line with its
#: sleepers. After the latter comes the status with which the second thread ends; it counts a number then of which the
#: lower half, which is all that a sleeper looks at, was none before.
HANDED_ON, RETURNED, STATUS, ENDED = 8, 16, 18, (1 << 60) - 1
#: Where the shares begin on a board, a cache line further on, and what each is at first.
SHARES, FIRST_SHARE = 24, 1 << 20


def new_board(n_threads: int) -> NDArray[np.int64]:
    """What a team of so many shares: arrivals and sleepers, and each one's share of either region."""
    board = np.full(SHARES + N_REGIONS * n_threads, FIRST_SHARE, np.int64)
    clear_arrivals(board)
    return board


def clear_arrivals(board: NDArray[np.int64]) -> None:
    """Make a board ready for the next call; the shares stay."""
    board[:SHARES] = 0
