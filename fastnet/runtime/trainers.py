"""Which kernel trains: that of all networks, on one thread or more, or one compiled for a small network alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastnet import contract
from fastnet.runtime.entry_points import entry_point, is_kept, is_loaded, n_variants
from fastnet.runtime.payback import LOAD_SECONDS, Payback
from fastnet.runtime.plans import MOST_PRODUCTS, Plan, make_plan, most_outputs
from fastnet.runtime.threads import Trainer

#: Seconds to compile for a plan, in a process that has compiled nothing yet (later ones 0.3), and to compile the kernel
#: for all networks.
COMPILE_SECONDS, GENERAL_SECONDS = 1.0, 3.7

_payback = Payback("train", COMPILE_SECONDS)


def trainer(
    execution: contract.Execution,
    layout: Any,
    parameters: Any,
    samples: contract.Samples,
    objective: contract.Objective,
    update: contract.Update,
    progress: contract.Progress,
    *,
    most_threads: Callable[[int | None], int],
    cores: Callable[[int], Any],
) -> Callable[..., int]:
    """The function that trains in place of `fastnet.kernels.network.train`.

    Parameters
    ----------
    execution : Execution
        How the fit is to be carried out.
    layout, parameters, samples, objective, update, progress
        The arguments of the first call.
    most_threads : callable
        Called with the threads that are asked for; returns how many are allowed.
    cores : callable
        Called with a number of threads; a context whose value is how many there may be now.

    Raises
    ------
    ValueError
        If the training is not small and `execution` says that it has to be.
    """
    plan = None
    if execution.specialize is not False:
        plan = make_plan(layout, parameters, samples, objective, update, execution.ordered)
        if plan is None and execution.specialize is True:
            n_outputs = most_outputs(8 * parameters.itemsize)
            n_weights = int((layout[:, contract.N_INPUTS] * layout[:, contract.N_OUTPUTS]).sum())
            raise ValueError(
                f"specialize=True needs a network of at most {MOST_PRODUCTS} weights and, in {parameters.dtype}, "
                f"{n_outputs} outputs, and batches of at most {contract.BLOCK_ROWS} samples; got {n_weights} weights, "
                f"{layout[-1, contract.N_OUTPUTS]} outputs and batches of {objective.batch_size}"
            )
    if plan is not None and (execution.specialize is True or _pays(plan, execution.n_epochs, len(samples.x))):
        return SmallTrainer(plan)
    asked = partial(most_threads, execution.threads)
    return Trainer(asked, cores, layout, parameters, samples, objective, update, progress)


class SmallTrainer:
    """`fastnet.kernels.small.train` for a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self._train = plan, entry_point("train", plan)

    def __call__(
        self, layout: Any, parameters: Any, samples: Any, objective: Any, update: Any, progress: Any, n_blocks: int
    ) -> int:
        """Train as `fastnet.kernels.network.train` does."""
        if n_blocks > 0 and (len(samples.order) > 0) != self.plan.ordered:
            raise ValueError("samples must have orders if, and only if, they were to have")
        status: int = self._train(self.plan, layout, parameters, samples, objective, update, progress, n_blocks)
        return status


def saving(plan: Plan) -> float:
    """Seconds that a step takes less when it is compiled for the plan; negative where it takes longer.

    Fitted to steps of networks of 16 to 336 weights on 1 to 256 rows: many weights or rows are better served by the
    tiles of `fastnet.kernels.products`.
    """
    return (150 + plan.batch_rows * (16 - 0.15 * plan.n_products)) * 1e-9


def _pays(plan: Plan, n_epochs: int, n_samples: int) -> bool:
    """Whether what has been asked of a plan in this process is worth the time until it is compiled."""
    saved, is_there = saving(plan) * n_epochs * -(-n_samples // plan.batch_rows), is_loaded("train", plan)
    if is_there and saved > 0:
        # Before files are looked for, which takes as long as some hundred epochs.
        return True
    spared = _seconds_spared(plan)
    if is_there or saved + spared <= 0:
        return saved + spared > 0
    return _payback.is_due(plan, saved, spared)


def _seconds_spared(plan: Plan) -> float:
    """Seconds until the kernel for all networks would be there; of its compilation, less what went into plans before.

    So nobody waits for it who trains a small network or two, and others wait at most twice as long.
    """
    dtype = f"float{plan.bits}"
    if is_loaded("train_together", dtype):
        return 0.0
    if is_kept("train_together", dtype):
        return LOAD_SECONDS
    return max(0.0, GENERAL_SECONDS - COMPILE_SECONDS * n_variants("train"))
