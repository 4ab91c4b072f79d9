"""Train a 3-4-1 network on a truth table for 10,000 epochs."""

import numpy as np

import fastnet

X = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
y = np.array([[0], [1], [1], [0]])

net = fastnet.Network([3, 4, 1], activation="sigmoid", output_activation="sigmoid", bias=False)
# The notebook's cell that draws the weights had been run twice after the seed was set.
random = np.random.RandomState(1)
net.initialize(seed=random)
net.initialize(seed=random)

history = net.fit(
    X,
    y,
    loss="squared_error",
    optimizer=fastnet.SGD(learning_rate=1.0),
    epochs=10_000,
    reduction="sum",
    shuffle=False,
    report_every=1000,
)
for report in history.reports:
    print(f"Error: {report.mean_absolute_error:.12g}")
