"""Balance a pendulum with a network that a jitted simulation calls a million times.

A network learns a controller's torque from angle and speed. Then a compiled loop integrates the pendulum by Runge and
Kutta's method and asks the network four times a step, without going back to Python. The kernels take plain arrays,
which a network shows as `net.layout`, where its weights lie, and `net.parameter_buffer`, the weights themselves: that
is not a copy, and training goes on in it.
"""

import math
import sys
import time

import numba
import numpy as np

import fastnet
from fastnet.kernels import forward

GRAVITY, FRICTION, STRONGEST, STEP = 9.81, 0.1, 15.0, 0.002


def teacher(angle, speed):
    """The torque that holds the pendulum upright, at angle 0, as far as the motor has it."""
    return np.clip(-20.0 * np.sin(angle) - 6.0 * speed, -STRONGEST, STRONGEST)


def train():
    angles, speeds = np.meshgrid(np.linspace(-1.5, 1.5, 41), np.linspace(-6.0, 6.0, 41))
    states = np.column_stack([angles.ravel(), speeds.ravel()])
    torques = teacher(*states.T) / STRONGEST
    net = fastnet.Network([2, 16, 1], activation="tanh").initialize(seed=0, scheme="glorot_uniform")
    history = net.fit(states, torques, optimizer=fastnet.Adam(0.01), epochs=200, batch_size=128, shuffle=True, seed=0)
    print(f"{net}\nloss {history.loss_curve[0]:.4f} -> {history.loss_curve[-1]:.6f}")
    return net


@numba.njit
def kernel_torque(network, angle, speed):
    layout, parameters, x, out = network
    x[0, 0], x[0, 1] = angle, speed
    return forward(layout, parameters, x, out)[0, 0]


def predicted_torque(network, angle, speed):
    net, x = network
    x[0, 0], x[0, 1] = angle, speed
    return net.predict(x)[0, 0]


def simulate(torque, network, n_steps):
    """Angle and speed after so many steps of four calls; the pendulum is pushed every ten seconds."""
    angle, speed = 0.5, 0.0
    for step in range(n_steps):
        if step % 5000 == 0:
            speed += 2.0
        d_angle = d_speed = sum_angle = sum_speed = 0.0
        for stage in range(4):
            reach = 0.0 if stage == 0 else STEP if stage == 3 else STEP / 2
            a, s = angle + reach * d_angle, speed + reach * d_speed
            d_angle = s
            d_speed = GRAVITY * math.sin(a) - FRICTION * s + STRONGEST * torque(network, a, s)
            weight = 1.0 if stage in (0, 3) else 2.0
            sum_angle += weight * d_angle
            sum_speed += weight * d_speed
        angle += STEP / 6 * sum_angle
        speed += STEP / 6 * sum_speed
    return angle, speed


def report(name, loop, torque, network, n_calls):
    start = time.perf_counter()
    angle, speed = loop(torque, network, n_calls // 4)
    seconds = time.perf_counter() - start
    print(f"{name}: {n_calls} calls, {1e6 * seconds / n_calls:.3f} us each, angle {angle:.9f}, speed {speed:.9f}")


n_calls = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
few = max(4, n_calls // 100)
net = train()
x = np.zeros((1, 2))
network = (net.layout, net.parameter_buffer, x, np.empty((1, 1)))
compiled = numba.njit(simulate)
compiled(kernel_torque, network, 1)
net.predict(x)
report("a jitted loop with the kernel", compiled, kernel_torque, network, n_calls)
report("the same, fewer calls", compiled, kernel_torque, network, few)
report("a Python loop with net.predict", simulate, predicted_torque, (net, x), few)
