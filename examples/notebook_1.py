"""Train a 3-4-1 network on exclusive or, and time it."""

import time

import numpy as np

import fastnet

x = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
y = np.array([[0], [1], [1], [0]])
print(x)
print("\n", y)

net = fastnet.Network([3, 4, 1], activation="sigmoid", output_activation="sigmoid", bias=False)
net.initialize(seed=4)
print(net.weights[0])
print("\n", net.weights[1])


def train(epochs):
    return net.fit(
        x,
        y,
        loss="squared_error",
        optimizer=fastnet.SGD(learning_rate=1.0),
        epochs=epochs,
        reduction="sum",
        shuffle=False,
        report_every=1000,
    )


# The cell whose output the notebook keeps was not the first to train these weights.
train(15_002)

start = time.perf_counter()
history = train(5001)
end = time.perf_counter()

for report in history.reports:
    print(f"Error at Epoch {report.epoch}: is  {report.mean_absolute_error:.12g}")
print("\nTime of execution ", end - start, "seconds")
print(f"\nFinal Error:  {history.reports[-1].mean_absolute_error:.12g}")
