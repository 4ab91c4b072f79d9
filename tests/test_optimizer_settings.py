import copy
import hashlib
import pickle
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest

from fastnet import contract
from fastnet.losses import Huber, Quantile, get_loss
from fastnet.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, Rprop, get_optimizer
from fastnet.schedules import CosineDecay, InverseScaling, StepDecay

OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "rprop": Rprop}
# Unit roundoff: the relative error of one operation on float64.
U = 2.0**-53


class TestOptimizers:
    @pytest.mark.parametrize(
        ("optimizer", "kind", "settings"),
        [
            (SGD(), contract.SGD, {"SGD_MOMENTUM": 0.0, "SGD_NESTEROV": 0.0}),
            (SGD(0.1, 0.9, nesterov=True), contract.SGD, {"SGD_MOMENTUM": 0.9, "SGD_NESTEROV": 1.0}),
            (
                Adam(0.1, 0.8, 0.99, 1e-7),
                contract.ADAM,
                {"ADAM_BETA_1": 0.8, "ADAM_BETA_2": 0.99, "ADAM_EPSILON": 1e-7, "ADAM_WEIGHT_DECAY": 0.0},
            ),
            (
                AdamW(0.1, 0.8, 0.99, 1e-7, 0.2),
                contract.ADAM,
                {"ADAM_BETA_1": 0.8, "ADAM_BETA_2": 0.99, "ADAM_EPSILON": 1e-7, "ADAM_WEIGHT_DECAY": 0.2},
            ),
            (
                RMSprop(0.1, 0.8, 0.7, 1e-7),
                contract.RMSPROP,
                {"RMSPROP_RHO": 0.8, "RMSPROP_MOMENTUM": 0.7, "RMSPROP_EPSILON": 1e-7},
            ),
            (
                Rprop(0.1, 0.4, 1.3, 1e-5, 40.0),
                contract.RPROP,
                {"RPROP_ETA_MINUS": 0.4, "RPROP_ETA_PLUS": 1.3, "RPROP_STEP_MIN": 1e-5, "RPROP_STEP_MAX": 40.0},
            ),
        ],
    )
    def test_settings(self, optimizer, kind, settings):
        assert optimizer.kind == kind
        assert optimizer.settings.dtype == np.float64
        assert optimizer.settings.shape == (len(settings),)
        assert {name: optimizer.settings[getattr(contract, name)] for name in settings} == settings

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        ("optimizer", "n_slots"),
        [(SGD(), 0), (SGD(momentum=0.5), 1), (Adam(), 2), (AdamW(), 2), (RMSprop(), 1), (RMSprop(momentum=0.5), 2)],
    )
    def test_slots(self, optimizer, n_slots, dtype):
        slots = optimizer.initial_slots(24, np.dtype(dtype))
        assert optimizer.n_slots == n_slots
        assert slots.shape == (n_slots, 24)
        assert slots.dtype == dtype
        assert slots.flags.writeable
        assert not slots.any()
        assert slots.size == 0 or slots.ctypes.data % contract.VECTOR_BYTES == 0

    @pytest.mark.parametrize("rate", [0.3, CosineDecay(0.3, 10)])
    def test_rprop_starts_from_the_learning_rate(self, rate):
        slots = Rprop(rate).initial_slots(16, np.dtype(np.float32))
        assert slots.shape == (2, 16)
        assert not slots[0].any()
        assert (slots[1] == np.float32(0.3)).all()

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_by_name(self, name):
        optimizer = get_optimizer(name)
        assert type(optimizer) is OPTIMIZERS[name]
        assert optimizer == OPTIMIZERS[name]()
        assert get_optimizer(optimizer) is optimizer

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"^optimizer must be one of 'sgd', .*got 'Adm'\. Did you mean 'adam'\?$"):
            get_optimizer("Adm")
        for value in (SGD, None, 0.1, StepDecay(0.1, 0.5, 1)):
            with pytest.raises(TypeError, match=r"^optimizer must be one of 'sgd', .* or an optimizer; got "):
                get_optimizer(value)

    @pytest.mark.parametrize("optimizer", [kind() for kind in OPTIMIZERS.values()])
    def test_frozen_values(self, optimizer):
        with pytest.raises(AttributeError):
            optimizer.learning_rate = 1.0
        assert pickle.loads(pickle.dumps(optimizer)) == optimizer == copy.deepcopy(optimizer)
        assert hash(optimizer) == hash(copy.deepcopy(optimizer))
        assert isinstance(optimizer, Optimizer)

    def test_adam_and_adamw_differ(self):
        assert Adam() != AdamW(weight_decay=0.0)

    def test_numbers_become_floats(self):
        optimizer = SGD(learning_rate=np.float32(0.5), momentum=Fraction(1, 2), nesterov=np.True_)
        assert [type(value) for value in (optimizer.learning_rate, optimizer.momentum, optimizer.nesterov)] == [
            float,
            float,
            bool,
        ]

    @pytest.mark.parametrize("kind", OPTIMIZERS.values())
    @pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf")])
    def test_learning_rate_range(self, kind, rate):
        with pytest.raises(ValueError, match=r"^learning_rate must be a number in \(0, inf\); got "):
            kind(learning_rate=rate)

    @pytest.mark.parametrize("kind", OPTIMIZERS.values())
    @pytest.mark.parametrize("rate", [None, "0.1", True, [0.1]])
    def test_learning_rate_type(self, kind, rate):
        with pytest.raises(TypeError, match=r"^learning_rate must be"):
            kind(learning_rate=rate)

    @pytest.mark.parametrize(
        ("kind", "name", "allowed", "refused"),
        [
            (SGD, "momentum", (0.0, 0.999), (-0.1, 1.0)),
            (Adam, "beta_1", (0.0, 0.999), (-0.1, 1.0)),
            (Adam, "beta_2", (0.0, 0.999), (-0.1, 1.0)),
            (Adam, "epsilon", (1e-300,), (0.0, -1.0)),
            (AdamW, "beta_1", (0.0, 0.999), (-0.1, 1.0)),
            (AdamW, "weight_decay", (0.0, 5.0), (-0.1, float("inf"))),
            (RMSprop, "rho", (0.0, 0.999), (-0.1, 1.0)),
            (RMSprop, "momentum", (0.0, 0.999), (-0.1, 1.0)),
            (RMSprop, "epsilon", (1e-300,), (0.0, -1.0)),
            (Rprop, "eta_minus", (1e-9, 0.999), (0.0, 1.0)),
            (Rprop, "eta_plus", (1.001, 9.0), (1.0, 0.5)),
            (Rprop, "step_min", (1e-300, 50.0), (0.0, -1.0)),
            (Rprop, "step_max", (1e-6, 1e6), (1e-7, 0.0)),
        ],
    )
    def test_ranges(self, kind, name, allowed, refused):
        for value in allowed:
            assert getattr(kind(**{name: value}), name) == value
        for value in refused:
            with pytest.raises(ValueError, match=f"^{name} must be a number in .*; got {value}$"):
                kind(**{name: value})
        with pytest.raises(TypeError, match=f"^{name} must be a number in"):
            kind(**{name: "0.5"})

    def test_nesterov_needs_momentum(self):
        with pytest.raises(ValueError, match=r"^nesterov must be False without momentum"):
            SGD(nesterov=True)
        with pytest.raises(TypeError, match=r"^nesterov must be True or False; got 1 "):
            SGD(momentum=0.5, nesterov=1)


def digits(power):
    """Ones in the binary fraction of a power."""
    fraction = Fraction(power) % 1
    return fraction.numerator.bit_count()


# Each with the relative error that its operations add up to, in units of U, and its formula.
SCHEDULES = [
    # Repeated roots are off by at most 1 + 1/2 + 1/4 + … = 2; each that joins the product adds 2 + 1, each squaring of
    # the integer part doubles the error so far and adds 1; the division adds 1.
    (InverseScaling(0.1), 3 * digits(0.5) + 1, lambda s, e: s.initial / (e + 1) ** mpmath.mpf(s.power)),
    (InverseScaling(0.1, 0.3), 3 * digits(0.3) + 1, lambda s, e: s.initial / (e + 1) ** mpmath.mpf(s.power)),
    (InverseScaling(2.0, 1.0), 1, lambda s, e: s.initial / (e + 1) ** mpmath.mpf(s.power)),
    (InverseScaling(2.0, 2.75), 3 + 3 * digits(0.75) + 1, lambda s, e: s.initial / (e + 1) ** mpmath.mpf(s.power)),
    (InverseScaling(2.0, 0.0), 0, lambda s, e: mpmath.mpf(s.initial)),
    # Every multiplication of a power's k factors adds 1, in whichever order; the one by `initial` too.
    (StepDecay(0.1, 0.97, 7), 1000 // 7, lambda s, e: s.initial * mpmath.mpf(s.factor) ** (e // s.every)),
    (StepDecay(0.1, 1.0, 1), 0, lambda s, e: mpmath.mpf(s.initial)),
    # The angle has 3 roundings, its sine 1.5 more, the square doubles that and adds 1; 1 - sin^2 is at least 1/2, so
    # that 10 become at most 11; the product and the sum of two positive terms add 2.
    (
        CosineDecay(0.1, 1000, 0.001),
        13,
        lambda s, e: s.final + (mpmath.mpf(s.initial) - s.final) * (1 + mpmath.cos(mpmath.pi * e / s.n_epochs)) / 2,
    ),
    (
        CosineDecay(0.1, 997),
        13,
        lambda s, e: mpmath.mpf(s.initial) * (1 + mpmath.cos(mpmath.pi * min(e, s.n_epochs) / s.n_epochs)) / 2,
    ),
]


class TestSchedules:
    @pytest.mark.parametrize(("schedule", "bound", "formula"), SCHEDULES, ids=[repr(row[0]) for row in SCHEDULES])
    def test_formula(self, schedule, bound, formula):
        rates = schedule.rates(0, 1001)
        assert rates.dtype == np.float64
        with mpmath.workprec(200):
            for epoch, rate in enumerate(rates.tolist()):
                true = formula(schedule, epoch)
                assert abs(rate - true) <= bound * U * true, epoch

    @pytest.mark.parametrize(
        ("schedule", "digest"),
        [
            (InverseScaling(0.1), "78d19dc1a1997abb"),
            (InverseScaling(0.1, 0.3), "adedeb6237d072a7"),
            (StepDecay(0.1, 0.97, 7), "ed7b8e8480e18632"),
            (CosineDecay(0.1, 1000, 0.001), "d4954cff181a5124"),
        ],
        ids=lambda value: repr(value)[:16],
    )
    def test_same_bits_everywhere(self, schedule, digest):
        assert hashlib.sha256(schedule.rates(0, 1001).astype("<f8").tobytes()).hexdigest()[:16] == digest

    @pytest.mark.parametrize("schedule", [schedule for schedule, _, _ in SCHEDULES])
    def test_division_into_calls_does_not_matter(self, schedule):
        whole = schedule.rates(0, 1200)
        optimizer = SGD(schedule)
        ends = [0, 1, 2, 9, 500, 999, 1000, 1001, 1200]
        parts = [optimizer.rates(low, high - low) for low, high in pairwise(ends)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        assert whole[0] == schedule.initial
        assert (np.diff(whole) <= 0).all()

    def test_cosine_ends_at_final(self):
        rates = CosineDecay(0.3, 7, 0.1).rates(0, 20)
        assert rates[6] > 0.1
        assert (rates[7:] == 0.1).all()
        assert CosineDecay(0.3, 1).rates(0, 3).tolist() == [0.3, 0.0, 0.0]

    def test_extremes_do_not_warn(self):
        with np.errstate(all="raise"):
            assert InverseScaling(1.0, 1024.0).rates(0, 3).tolist() == [1.0, 0.0, 0.0]
            assert StepDecay(1.0, 0.5, 1).rates(1073, 3).tolist() == [2.0**-1073, 2.0**-1074, 0.0]
            assert InverseScaling(1.0, 1e-300).rates(0, 3).tolist() == [1.0, 1.0, 1.0]

    def test_constant(self):
        assert SGD(0.25).rates(5, 3).tolist() == [0.25, 0.25, 0.25]
        assert SGD(0.25).rates(5, 0).shape == StepDecay(0.1, 0.5, 1).rates(5, 0).shape == (0,)

    @pytest.mark.parametrize("rate", [0.1, StepDecay(0.1, 0.5, 1)])
    def test_epochs_are_checked(self, rate):
        with pytest.raises(ValueError, match=r"^first_epoch must be an integer of at least 0; got -1$"):
            SGD(rate).rates(-1, 2)
        with pytest.raises(TypeError, match=r"^n_epochs must be an integer"):
            SGD(rate).rates(0, 2.0)

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda: InverseScaling(0.0), "initial"),
            (lambda: InverseScaling(1.0, -0.5), "power"),
            (lambda: InverseScaling(1.0, 1025.0), "power"),
            (lambda: StepDecay(-1.0, 0.5, 1), "initial"),
            (lambda: StepDecay(1.0, 0.0, 1), "factor"),
            (lambda: StepDecay(1.0, 1.1, 1), "factor"),
            (lambda: StepDecay(1.0, 0.5, 0), "every"),
            (lambda: CosineDecay(0.0, 5), "initial"),
            (lambda: CosineDecay(1.0, 0), "n_epochs"),
            (lambda: CosineDecay(1.0, 5, 1.5), "final"),
            (lambda: CosineDecay(1.0, 5, -0.1), "final"),
        ],
    )
    def test_ranges(self, make, name):
        with pytest.raises(ValueError, match=f"^{name} must be "):
            make()

    def test_types(self):
        with pytest.raises(TypeError, match=r"^every must be an integer"):
            StepDecay(1.0, 0.5, 2.0)
        with pytest.raises(TypeError, match=r"^initial must be a number"):
            CosineDecay("1", 5)


class TestLosses:
    @pytest.mark.parametrize("name", contract.LOSSES)
    def test_by_name(self, name):
        default = {"huber": 1.0, "quantile": 0.5}.get(name, 0.0)
        assert get_loss(name) == (contract.LOSSES.index(name), default)

    def test_with_setting(self):
        assert get_loss(Huber(2)) == (contract.HUBER, 2.0)
        assert get_loss(Quantile(0.25)) == (contract.QUANTILE, 0.25)

    def test_unknown(self):
        with pytest.raises(
            ValueError, match=r"^loss must be one of .*got 'cross_entrpy'\. Did you mean 'cross_entropy'\?$"
        ):
            get_loss("cross_entrpy")
        for value in (None, 3, Huber, SGD()):
            with pytest.raises(TypeError, match=r"^loss must be one of .*, or a Huber or a Quantile; got "):
                get_loss(value)

    @pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), float("inf")])
    def test_huber_range(self, delta):
        with pytest.raises(ValueError, match=r"^delta must be a number in \(0, inf\); got "):
            Huber(delta)

    @pytest.mark.parametrize("quantile", [0.0, 1.0, -0.1, float("nan")])
    def test_quantile_range(self, quantile):
        with pytest.raises(ValueError, match=r"^quantile must be a number in \(0, 1\); got "):
            Quantile(quantile)
