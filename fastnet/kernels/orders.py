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
    n_samples = orders.shape[1]
    position = int(state[_N_WORDS])
    _temper(state, words)
    for epoch in range(orders.shape[0]):
        # Fisher and Yates, from the last place on: first all draws, for swaps in between, whose addresses they are,
        # are guessed wrong by the CPU as often as a draw is rejected (9 ns a sample instead of 3).
        place, mask = n_samples - 1, np.int64(1)
        while mask < place:
            mask = 2 * mask + 1
        while place > 0:
            least = mask >> 1
            while place > least:
                if position == _N_WORDS:
                    _twist(state)
                    _temper(state, words)
                    position = 0
                while place > least and position < _N_WORDS:
                    drawn = np.int64(words[position]) & mask
                    # One beyond the place is drawn again, without a branch.
                    orders[epoch, place] = drawn
                    place -= np.int64(drawn <= place)
                    position += 1
            mask = least
        for index in range(n_samples):
            numbers[index] = index
        for place in range(n_samples - 1, 0, -1):
            drawn = orders[epoch, place]
            orders[epoch, place] = numbers[drawn]
            numbers[drawn] = numbers[place]
        if n_samples > 0:
            orders[epoch, 0] = numbers[0]
    state[_N_WORDS] = position
    return True
