"""Multiply matrices, find a pseudo-inverse, and train a 4-3-1 network with biases."""

import numpy as np

import fastnet
from fastnet.kernels import matmul, multiply, transpose

a = np.array([[4.0, 2.0, 3.0], [2.0, 0.0, 1.0]])
b = transpose(a)
print(matmul(a, b))
print(matmul(b, a))

# Least squares from a to the identity: the weights of the layer are the pseudo-inverse of a.
layer = fastnet.Network([3, 2], output_activation="identity", bias=False)
layer.fit_output_layer(a, np.eye(2))
pinv_a = layer.weights[0]
print(pinv_a)
print(matmul(a, pinv_a).round(8) + 0.0)
print(matmul(pinv_a, a))

a = np.array([[1.0, 2.0], [3.0, 4.0]])
b = np.array([[5.0, 6.0], [7.0, 8.0]])
print(multiply(a, b))
print(multiply(b, a))

X = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [0, 1, 0, 1]])
y = np.array([[1], [1], [0]])

# The notebook drew its weights without a seed.
net = fastnet.Network([4, 3, 1], activation="sigmoid", output_activation="sigmoid", bias=True)
net.initialize(seed=0, low=0.0, high=1.0)
history = net.fit(
    X,
    y,
    loss="squared_error",
    optimizer=fastnet.SGD(learning_rate=0.1),
    epochs=5000,
    reduction="sum",
    shuffle=False,
)
print(net.predict(X))
# E = 1/2 (y_t - y_p)^T (y_t - y_p), before the first and the last update.
print(history.loss_curve[[0, -1]])
