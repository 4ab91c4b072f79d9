"""Trains a network from eight starts, each in its own iteration of a prange."""

import numba
import numpy as np

from fastnet import Adam, Network, contract
from fastnet.contract import Objective, Samples, Update
from fastnet.kernels import gradient, step


@numba.njit(parallel=True)
def train(layout, parameters, samples, objective, update, slots, powers, gradients, losses):
    for i in numba.prange(parameters.shape[0]):
        own = Update(update.kind, update.settings, slots[i], powers[i], update.learning_rates)
        for epoch in range(update.learning_rates.size):
            losses[i] = gradient(layout, parameters[i], samples, objective, gradients[i])
            rate = update.learning_rates[epoch]
            step(layout, parameters[i], gradients[i], samples.weight.sum(), objective, own, rate)


X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float64)
xor = np.array([0, 1, 1, 0])
networks = [Network([2, 8, 1], "tanh", "sigmoid").initialize(seed=seed) for seed in range(8)]
layout, adam = networks[0].layout, Adam(0.05)

samples = Samples(X, y=xor[:, None].astype(np.float64), weight=np.ones(4), order=np.empty((0, 4), np.int64))
objective = Objective(contract.BINARY_CROSS_ENTROPY, parameter=0.0, mean=True, l2=0.0, batch_size=4)
parameters = np.stack([network.parameter_buffer for network in networks])
no_slots = adam.initial_slots(parameters.shape[1], parameters.dtype)
update = Update(adam.kind, adam.settings, no_slots, np.ones(2), np.full(300, adam.learning_rate))
slots, powers = np.stack([no_slots] * 8), np.ones((8, 2))
losses = np.zeros(8)
train(layout, parameters, samples, objective, update, slots, powers, np.zeros_like(parameters), losses)

best = int(losses.argmin())
networks[best].parameter_buffer[:] = parameters[best]
print("summed losses:", *losses.round(3))
print("outputs of the best:", *networks[best].predict(X).ravel().round(3))

fitted = Network([2, 8, 1], "tanh", "sigmoid").initialize(seed=best)
fitted.fit(X, xor, loss="binary_cross_entropy", optimizer=adam, epochs=300)
print("the bits of fit:", fitted == networks[best])
