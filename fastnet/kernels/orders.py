"""Orders of samples: what NumPy's `RandomState.permutation` draws, from the same state.

The numbers come from a Mersenne Twister (Matsumoto and Nishimura 1998, MT19937), whose 624 words are made and
tempered in loops that LLVM turns into vectors; integers have the same bits in any order.
"""

from __future__ import annotations

import numpy as np

from fastnet.kernels import signatures
from fastnet.kernels.jit import jit_entry, jit_inline

#: Words of the key, and how far ahead lies the one that a new word is made with.
_N_WORDS, _AHEAD = 624, 397
_UPPER, _LOWER, _MATRIX = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
#: Without a sign: Numba lets a negative index count from the end, which it asks of each that may be one.
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_MASK_B, _MASK_C = np.uint32(0x9D2C5680), np.uint32(0xEFC60000)


@jit_inline
def _made(ahead, word, following):
    """The word of the next key in place of a word."""
    joined = (word & _UPPER) | (following & _LOWER)
    return ahead ^ (joined >> np.uint32(1)) ^ (_MATRIX * (joined & np.uint32(1)))


@jit_inline
def _twist(key):
    """Make the next key, in place."""
    for index in range(_N_WORDS - _AHEAD):
        key[index] = _made(key[index + _AHEAD], key[index], key[index + 1])
    for index in range(_N_WORDS - _AHEAD, _N_WORDS - 1):
        key[index] = _made(key[index + _AHEAD - _N_WORDS], key[index], key[index + 1])
    key[_N_WORDS - 1] = _made(key[_AHEAD - 1], key[_N_WORDS - 1], key[0])


@jit_inline
def _temper(key, words):
    """Write the random words of a key."""
    for index in range(_N_WORDS):
        word = key[index]
        word ^= word >> np.uint32(11)
        word ^= (word << np.uint32(7)) & _MASK_B
        word ^= (word << np.uint32(15)) & _MASK_C
        words[index] = word ^ (word >> np.uint32(18))


@jit_entry(signatures.orders)
def draw_orders(state, words, numbers, orders):
    """Fill the rows of orders, one after the other, with what `RandomState.permutation` draws, and move the state on.

    Parameters
    ----------
    state : (625,) uint32 array
        The key, and how many of its words are used up.
    words : (624,) uint32 array
        Memory for the random words of a key.
    numbers : (n_samples,) uint32 array
        Memory for the numbers that are being shuffled.
    orders : (n_epochs, n_samples) int64 array
        What is filled.
    """
    n_samples, n_words = np.uint64(orders.shape[1]), np.uint64(_N_WORDS)
    position = np.uint64(state[_N_WORDS])
    if n_samples == _ZERO:
        return True
    _temper(state, words)
    for epoch in range(orders.shape[0]):
        order = orders[epoch]
        # Fisher and Yates, from the last place on: first all draws, for swaps in between, whose addresses they are,
        # are guessed wrong by the CPU as often as a draw is rejected (9 ns a sample instead of 2).
        place, mask = n_samples - _ONE, _ONE
        while mask < place:
            mask = mask << _ONE | _ONE
        while place > _ZERO:
            least = mask >> _ONE
            while place > least:
                if position == n_words:
                    _twist(state)
                    _temper(state, words)
                    position = _ZERO
                while place > least and position < n_words:
                    drawn = words[position] & mask
                    # One beyond the place is drawn again: without a branch, as place - (drawn <= place) in twice the
                    # time.
                    order[place] = drawn
                    place = place - _ONE + np.uint64(drawn > place)
                    position += _ONE
            mask = least
        for index in range(n_samples):
            numbers[index] = index
        for last in range(n_samples - _ONE, _ZERO, -1):
            swapped = np.uint64(order[last])
            order[last] = numbers[swapped]
            numbers[swapped] = numbers[last]
        order[_ZERO] = numbers[_ZERO]
    state[_N_WORDS] = position
    return True
