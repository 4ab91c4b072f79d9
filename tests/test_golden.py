"""Goldens: those of the project hold, on this CPU and on others; others are recorded, replayed, and found out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import fastnet
from fastnet import contract
from fastnet.backends import Backend
from fastnet.reference import exact
from fastnet.reference import network as reference
from fastnet.testing import golden_file
from fastnet.testing.cases import Case
from fastnet.testing.faults import FAULTS
from fastnet.testing.golden import GoldenError, assert_trajectory, check, golden_from_arrays, record
from fastnet.testing.golden_records import Bound, digest
from fastnet.testing.golden_report import environment
from tests.data.record_goldens import goldens
from tests.recording import DATA, FILES, SETTINGS, X, Y, network, recorded


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recorded.golden"


def faulty_from_epoch(epoch):
    """The reference, whose weight gradients add their samples in the opposite order from an epoch of Adam on."""

    def weight_gradient(x, delta):
        return exact.weight_gradient(x[..., ::-1, :], delta[..., ::-1, :])

    flipped = SimpleNamespace(**vars(exact) | {"weight_gradient": weight_gradient})

    def train(layout, parameters, samples, objective, update, progress, n_blocks):
        steps_of_epoch = -(-len(samples.x) // objective.batch_size)
        n_steps = round(np.log(update.powers[0]) / np.log(0.9))
        n_sound = epoch * steps_of_epoch - n_steps
        of_fit = (layout, parameters, samples, objective, update, progress)
        if n_sound <= 0:
            return reference.train(*of_fit, n_blocks, arithmetic=flipped)
        status = reference.train(*of_fit, min(n_blocks, n_sound), arithmetic=exact)
        if status != contract.PAUSED or n_blocks <= n_sound:
            return status
        return reference.train(*of_fit, n_blocks - n_sound, arithmetic=flipped)

    return Backend(partial(reference.forward, arithmetic=exact), train, is_compiled=False)


# --- the goldens of the project ---


def test_project_has_all_its_goldens():
    assert {file.stem for file in FILES} == {*goldens(), "torch_sgd", "torch_adam"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels_give_the_goldens(file):
    check(file).require()


@pytest.mark.parametrize("name", ["rprop-float32", "adamw-float64", "torch_sgd", "torch_adam"])
def test_reference_gives_the_goldens(name):
    check(DATA / f"{name}.golden", "exact").require()


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_reference_gives_all_goldens(file):
    check(file, "exact").require()


def test_case_is_trained_as_the_golden_says():
    case = replace(
        Case((3, 5, 4, 2), "tanh", "sigmoid", "binary_cross_entropy", "momentum", epochs=20),
        l2=0.01,
        shuffle=True,
        weighted=True,
        seed=7,
    )
    x, y, weight = case.data()
    settings = case.settings
    file = DATA / "momentum-float64.golden"
    assert_trajectory(case.network(), x, y, file, sample_weight=weight, **settings)
    with pytest.raises(GoldenError, match=r"l2 is 0\.02, and was 0\.01"):
        assert_trajectory(case.network(), x, y, file, sample_weight=weight, **settings | {"l2": 0.02})


CHECK_ALL = """
import sys
from numba.core import registry
from fastnet.testing.golden import check
print(registry.cpu_target.target_context.codegen().magic_tuple()[1])
for path in sys.argv[1:]:
    check(path).require()
"""


@pytest.mark.parametrize("cpu", ["haswell", "nehalem"])
def test_other_cpus_give_the_goldens(cpu):
    """Without an empty list of features Numba would keep the host's."""
    completed = subprocess.run(
        [sys.executable, "-c", CHECK_ALL, *map(str, FILES)],
        env={**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (completed.returncode, completed.stdout.strip()) == (0, cpu), completed.stderr


def test_bound_of_pytorch_finds_a_rate_that_is_off(path):
    """By 10^-10 of itself: that moves parameters by up to 10^-12 of their size, four times the bound."""
    text = (DATA / "torch_sgd.golden").read_text()
    path.write_text(text.replace('"learning_rate": 0.02,', '"learning_rate": 0.020000000002,'))
    assert path.read_text() != text
    report = check(path)
    assert not report.passed
    assert "does not agree within 2.8e-13 relative" in str(report)
    assert report.comparison is None
    assert set(report.agreeing.values()) == {False}


# --- recording ---


def test_golden_is_replayed_by_every_backend(path):
    recorded(path)
    for backend in ("numba", "exact"):
        report = check(path, backend)
        assert report.passed
        assert report.n_checked == 9
        assert report.require() is report
        assert "agrees bit for bit in 9 recorded epochs" in str(report)
    assert check(path, threads=1).passed


def test_recording_leaves_the_network_alone_and_starts_without_state(path):
    trained = network()
    trained.fit(X, Y, **SETTINGS)
    before = trained.parameters
    record(path, trained, X, Y, backend="numba", **SETTINGS)
    assert (trained.parameters == before).all()
    assert trained._training.n_epochs == 9
    assert check(path).passed


@pytest.mark.parametrize(
    ("every", "epochs"), [(1, [*range(9)]), (4, [0, 4, 8]), (5, [0, 5, 8]), (20, [0, 8]), ([3, 2], [2, 3])]
)
def test_epochs_that_are_recorded(path, every, epochs):
    recorded(path, every=every)
    entries = golden_file.read(path).entries
    assert [entry.epoch for entry in entries] == epochs
    net = network()
    history = net.fit(X, Y, **SETTINGS | {"epochs": epochs[-1] + 1})
    assert entries[-1].loss == history.loss_curve[-1]
    assert entries[-1].parameters == digest([net.parameters])


def test_elements_that_are_shown(path):
    def shown():
        return {name: list(array.shown) for name, array in golden_file.read(path).entries[0].arrays.items()}

    recorded(path)
    assert shown()["weights.0"] == [(0, 0), (1, 2)]
    assert shown()["first moment of weights.0"] == []
    recorded(path, weights_shown=["weights.0[1, 0]", "biases.1[0]"], reason="other elements")
    assert [name for name, indices in shown().items() if indices] == ["weights.0", "biases.1"]
    recorded(path, weights_shown="all", reason="all of them")
    assert sum(map(len, shown().values())) == network().n_parameters
    with pytest.raises(ValueError, match=r"elements like 'weights\.0\[0, 0\]'; got 'weights\.2\[0\]'"):
        recorded(path, weights_shown=["weights.2[0]"], reason="none of it")


def test_reasons_are_kept(path):
    recorded(path)
    with pytest.raises(ValueError, match="a reason is needed to record it again"):
        recorded(path)
    with pytest.raises(ValueError, match="reason must not be empty"):
        recorded(path, reason=" ")
    recorded(path, reason="the sigmoid\nis more accurate | now")
    written = golden_file.read(path).recordings
    assert [one.reason for one in written] == ["first recording", "the sigmoid is more accurate / now"]
    assert {one.author for one in written} == {"a tester"}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_header_tells_where_it_is_from(path):
    recorded(path)
    described = golden_file.read(path).environment
    assert described == environment()
    assert {"fastnet", "numba", "llvmlite", "numpy", "cpu", "cpu features"} <= described.keys()


def test_every_setting_is_read_again(path):
    settings = {
        "loss": fastnet.Huber(delta=0.1),
        "optimizer": fastnet.SGD(learning_rate=fastnet.InverseScaling(0.1, power=0.3), momentum=0.3),
        "epochs": 3,
        "batch_size": 2,
        "reduction": "sum",
        "shuffle": True,
        "seed": 5,
        "l2": 0.1,
    }
    record(path, network(dtype="float32"), X, Y, sample_weight=[1.0, 0.1, 2.0], **settings)
    assert golden_file.read(path).settings == settings
    assert check(path).passed
    assert check(path, "exact").passed


def test_labels_are_stored_as_they_are(path):
    net = network(layer_sizes=[2, 3, 3], output_activation="softmax", bias=False)
    record(path, net, X, [0, 2, 1], loss="cross_entropy", epochs=3)
    assert golden_file.read(path).data["y"].shape == (3,)
    assert check(path).passed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend_": "numba"}, "a setting must be one of"),
        ({"report_every": 1}, "a setting must be one of"),
        ({"shuffle": True}, "seed of a training that is to be repeated must be an integer"),
        ({"seed": np.random.default_rng(0)}, "seed of a training that is to be repeated must be an integer"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"reduction": "median"}, "reduction must be"),
        ({"every": 0}, "every must be"),
        ({"every": [100]}, "every must be"),
        ({"every": []}, "every must name an epoch"),
        ({"optimizer": "adan"}, "Did you mean 'adam'"),
    ],
)
def test_other_arguments_are_refused(path, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        record(path, network(), X, Y, **settings)
    assert not path.exists()


def test_divergence_is_not_recorded(path):
    with pytest.raises(fastnet.DivergenceError):
        record(path, network(activation="identity"), 100 * X, Y, optimizer=fastnet.SGD(1e3), epochs=1000, every=10)
    assert not path.exists()


def test_large_data_are_passed(path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2000, 3)), rng.standard_normal((2000, 1))
    net = fastnet.Network([3, 1200, 1]).initialize(seed=0)
    record(path, net, x, y, epochs=2, batch_size=500, backend="numba")
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"weights\.0 is too large to be in the golden"):
        check(path)
    assert check(path, network=net, X=x, y=y).passed
    with pytest.raises(GoldenError, match="X does not have the bits"):
        check(path, network=net, X=x + 1e-9, y=y)
    with pytest.raises(GoldenError, match="layer_sizes is"):
        check(path, network=fastnet.Network([3, 1201, 1]), X=x, y=y)


# --- goldens from elsewhere ---


def run_elsewhere():
    """A linear network with a hidden layer, in numbers of few bits: nothing is rounded."""
    w = [np.array([[0.5, 0.25]]), np.array([[0.5], [0.5]])]
    start, trajectory = [array.T.copy() for array in w], {}
    for epoch in range(2):
        hidden = 1.0 * w[0]
        error = (hidden @ w[1]) - 1.0
        gradients = [1.0 * error @ w[1].T, hidden.T @ error]
        w = [array - 0.25 * gradient for array, gradient in zip(w, gradients, strict=True)]
        trajectory[epoch] = (0.5 * float(error[0, 0]) ** 2, [array.T.copy() for array in w])
    return start, trajectory


def from_elsewhere(path, **changes):
    start, trajectory = run_elsewhere()
    arguments = {
        "bound": Bound(0, "ulp", "nothing is rounded"),
        "source": {"by": "hand"},
        "activation": "identity",
        "bias": False,
        "transposed": True,
        "optimizer": fastnet.SGD(0.25),
        "epochs": 2,
        "reduction": "sum",
    }
    return golden_from_arrays(path, start, trajectory, [[1.0]], [1.0], **arguments | changes)


def test_other_runs_become_goldens(path):
    from_elsewhere(path)
    for backend in ("numba", "exact", "numpy"):
        check(path, backend).require()
    assert golden_file.read(path).environment == {"by": "hand"}


@pytest.mark.parametrize("kind", ["relative", "ulp"])
def test_bounds_are_kept(path, kind):
    """Ten units in the last place of the first weight, which is 1.25 * 2^-1 in the first epoch, are 2^-49."""
    start, trajectory = run_elsewhere()
    weight = trajectory[0][1][0]
    off = 10 * np.spacing(weight[0, 0])
    weight[0, 0] += off
    largest = float(np.abs(weight).max())
    for size, passes in [(10, True), (9, False)]:
        allowed = size if kind == "ulp" else size / 10 * off / largest
        arguments = {
            "bound": Bound(allowed, kind, "planted"),
            "reason": "again",
            "epochs": 2,
            "optimizer": fastnet.SGD(0.25),
        }
        golden_from_arrays(
            path,
            start,
            {0: trajectory[0]},
            [[1.0]],
            [1.0],
            source={},
            activation="identity",
            bias=False,
            transposed=True,
            reduction="sum",
            **arguments,
        )
        report = check(path)
        assert report.passed is passes
    assert "layer 1, weights[0, 0]" in str(report)
    assert "10 ULP apart" in str(report)


def test_bound_needs_an_explanation(path):
    with pytest.raises(ValueError, match="must say where it comes from"):
        Bound(1e-9, "relative", " ")
    with pytest.raises(ValueError, match="one of relative, ulp"):
        Bound(1e-9, "absolute", "why not")
    with pytest.raises(ValueError, match="finite and not negative"):
        Bound(float("nan"), "ulp", "why not")
    start, trajectory = run_elsewhere()
    trajectory[1] = (0.0, start[::-1])
    with pytest.raises(ValueError, match="the parameters of epoch 1 must have the shapes"):
        golden_from_arrays(
            path, start, trajectory, [[1.0]], [1.0], bound=Bound(0, "ulp", "."), source={}, bias=False, transposed=True
        )


# --- failing checks ---


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_named(path, name):
    fault = FAULTS[name]
    x, y, weight = fault.case.data()
    record(path, fault.case.network(), x, y, sample_weight=weight, **fault.case.settings | {"epochs": 4}, every=2)
    assert check(path, "exact").passed
    report = check(path, fault.backend())
    assert not report.passed
    assert report.epoch == 0
    assert report.comparison.batch == fault.batch
    assert report.comparison.difference.name == fault.array
    assert report.agreeing == {report.backend: False, "exact": True, "numba": True}
    assert f"in epoch 0, batch {fault.batch}" in str(report)
    assert "the reference still gives the golden" in str(report)


@pytest.mark.parametrize("every", [1, 4, 8])
def test_first_epoch_is_found_between_recorded_ones(path, every):
    recorded(path, every=every)
    report = check(path, faulty_from_epoch(3))
    assert report.epoch == 3
    assert report.comparison.difference.name.startswith("weight_gradient")
    assert report.comparison.difference.layer == 2
    assert "parts from exact in epoch 3, batch 0" in str(report)
    assert report.comparison.course != "jump"
    assert "it jumps" not in str(report)
    with pytest.raises(GoldenError, match="from epoch 3 on"):
        report.require()


def test_golden_that_no_backend_gives(path):
    """One of a faulty reference: only the file tells where, by digests and by what it shows."""
    recorded(path, backend=faulty_from_epoch(3), weights_shown="all")
    report = check(path)
    assert report.agreeing == {"numba": False, "exact": False}
    assert (report.epoch, report.n_checked, report.comparison) == (3, 3, None)
    assert report.parting.names[0] in str(report)
    assert "no backend gives the golden" in str(report)
    assert "in ULP of the loss and of what is shown" in str(report)


def test_edited_elements_are_found(path):
    text = recorded(path, every=4)
    edited, n_edited = re.subn(r"(?<=  \[0, 0\] )\S+", "0x1.8p+0", text, count=1)
    assert n_edited == 1
    path.write_text(edited)
    assert check(path).epoch == 0


def test_digest_finds_what_is_not_shown(path):
    recorded(path, backend=faulty_from_epoch(8), weights_shown=0)
    report = check(path)
    assert report.epoch == 8
    assert "no parameter that the file shows" in str(report)


def test_replay_that_diverges(path):
    def train(layout, parameters, *arguments):
        parameters[:1] = np.inf
        return reference.train(layout, parameters, *arguments)

    recorded(path, every=4)
    report = check(path, Backend(reference.forward, train, is_compiled=False))
    assert not report.passed
    assert "not finite" in str(report)


def test_other_environment_is_named(path):
    text = recorded(path, backend=faulty_from_epoch(3))
    report = check(path)
    assert "the environment is the one in the golden's header" in str(report)
    path.write_text(re.sub(r"(?m)^numpy: .*$", "numpy: 1.0", text))
    assert f"numpy: 1.0 in the golden, {np.__version__} here" in str(check(path))


def test_other_trainings_are_refused(path):
    recorded(path)
    assert assert_trajectory(network(), X, Y, path, **SETTINGS).passed
    assert assert_trajectory(network(), X, Y, golden_file.read(path), backend="exact", **SETTINGS).passed
    others = [
        ("epochs is 8, and was 9", network(), X, SETTINGS | {"epochs": 8}),
        (r"optimizer is .*0\.25.*, and was .*0\.125", network(), X, SETTINGS | {"optimizer": fastnet.Adam(0.25)}),
        ("activation is .'tanh'., and was .'sigmoid'.", network(activation="tanh"), X, SETTINGS),
        (r"weights\.0 does not have the bits", network().initialize(seed=2), X, SETTINGS),
        ("X does not have the bits", network(), -X, SETTINGS),
        ("there is sample_weight on one side only", network(), X, SETTINGS | {"sample_weight": [1, 2, 3]}),
    ]
    for message, net, x, settings in others:
        with pytest.raises(GoldenError, match=f"another training than the golden's: .*{message}"):
            assert_trajectory(net, x, Y, path, **settings)
