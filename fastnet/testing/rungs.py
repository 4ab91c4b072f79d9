"""The checks of `fastnet.testing.verify`: each is a function of a `Context` that returns its `Findings`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import contract, kernels
from fastnet.network import Network
from fastnet.testing.accuracy import HALF_DIGIT, IN_FLOAT64, LIMITS, float32_errors, float64_errors, read_true_values
from fastnet.testing.calls import CALLS, DTYPES, UNARY, Source, arrays_of, copied, twins
from fastnet.testing.cases import NOTEBOOK, Case, covering_cases, small_cases
from fastnet.testing.central_differences import derivatives, gradient_cases
from fastnet.testing.comparison import compare
from fastnet.testing.difference import first_difference
from fastnet.testing.notebooks import NOTEBOOKS, Notebook
from fastnet.testing.other_cpus import check_cpus
from fastnet.testing.release import read_release
from fastnet.testing.rung_context import Arrays, Context, Findings, digest, first_parting
from fastnet.threads import usable_cores

#: Numbers that functions of one argument are called with, and float32 numbers that their errors are measured on.
_SIZE, _EXHAUSTIVE_SIZE, _SAMPLE = 5_000, 1 << 21, 1 << 16
#: Inputs of a sweep over all float32 numbers that are worked on at a time.
_CHUNK = 1 << 16
#: Epochs of a notebook in which it is looked for what parts first: step by step, exact takes milliseconds for each.
_PREFIX = 100
_KERNELS_ONLY = "it calls the kernels one by one; another backend is judged by its trainings"


# --- functions ---


def check_functions(context: Context) -> Findings:
    """Every function of the kernels gives the bits of its twin in the reference."""
    if context.backend != "numba":
        return Findings(skipped=_KERNELS_ONLY)
    findings = Findings()
    n_elements = largest = 0
    for name in CALLS:
        for dtype in DTYPES:
            context.progress(f"{name} {dtype}")
            joined = hashlib.sha256()
            for arguments in _arguments(context, name, dtype):
                results = _call_twins(name, arguments)
                n_elements += sum(array.size for array in arrays_of(results[2]))
                failure, ulp = _compare_results(*results[:2])
                largest = max(largest, ulp)
                if failure:
                    findings.failures.append(f"{name} {dtype}: {failure}")
                joined.update(digest(results[0]).encode())
            findings.digests[f"{name} {dtype}"] = joined.hexdigest()
    findings.figures = {"functions": len(findings.digests), "elements": n_elements, "largest ULP": largest}
    return findings


def _arguments(context: Context, name: str, dtype: str) -> Iterator[tuple[Any, ...]]:
    yield from CALLS[name](Source(dtype, _EXHAUSTIVE_SIZE if context.exhaustive else _SIZE))
    if context.exhaustive and name.removeprefix("exact.") in UNARY and dtype == "float32":
        yield from ((x,) for x in _all_float32(context, f"{name} {dtype}"))


def _all_float32(context: Context, what: str) -> Iterator[NDArray[np.float32]]:
    for start in range(0, 1 << 32, _CHUNK):
        context.progress(f"{what}: {start / 2**32:.1%} of 2^32 inputs")
        yield np.arange(start, start + _CHUNK, dtype=np.int64).astype(np.uint32).view(np.float32)


def _call_twins(name: str, arguments: tuple[Any, ...]) -> tuple[Arrays, Arrays, Any]:
    """What kernel and reference return and make of their arguments, and what the kernel returns or changes."""
    kernel, reference = twins(name)
    mine, yours = copied(arguments), copied(arguments)
    with np.errstate(all="ignore"):
        result, expected = kernel(*mine), reference(*yours)
    actual, desired = (
        {f"result {position}" if position else "result": array for position, array in enumerate(arrays_of(everything))}
        for everything in ((result, mine), (expected, yours))
    )
    return actual, desired, mine if result is None else result


def _compare_results(actual: Arrays, desired: Arrays) -> tuple[str, int]:
    """What parted first, if anything did, and the largest distance."""
    floats = {name: array for name, array in actual.items() if array.dtype.kind == "f"}
    difference = first_difference(floats, {name: desired[name] for name in floats})
    if difference is not None:
        return str(difference), difference.max_ulp
    parted = [name for name in actual if name not in floats and not np.array_equal(actual[name], desired[name])]
    return (f"{parted[0]} is {actual[parted[0]]}, not {desired[parted[0]]}" if parted else ""), 0


# --- accuracy ---


def check_accuracy(context: Context) -> Findings:
    """Elementary functions are within their limits of the true values, which NumPy and a table by mpmath know."""
    if context.backend != "numba":
        return Findings(skipped=_KERNELS_ONLY)
    findings = Findings()
    sizes = {"float64": 0, "float32": 0}
    largest: dict[str, float] = {}

    def judge(name: str, dtype: str, x: NDArray[np.floating], errors: NDArray[np.float64], slack: float) -> None:
        sizes[dtype] += x.size
        worst, limit = int(np.argmax(errors)), LIMITS.get(name, np.inf)
        largest[f"{name} {dtype}"] = max(largest.get(f"{name} {dtype}", 0.0), float(errors[worst]))
        if not errors[worst] <= limit + slack:
            at = float(x[worst])
            findings.failures.append(f"{name} {dtype}: {errors[worst]:.4f} ULP at {at.hex()} ({at!r}), above {limit}")

    for name, (x, rounded, rest) in read_true_values().items():
        judge(name, "float64", x, float64_errors(getattr(kernels, name)(x), rounded, rest), HALF_DIGIT)
    for name, in_float64 in IN_FLOAT64.items():
        source = Source("float32", _SAMPLE, seed=1)
        sample = np.concatenate([source.bit_patterns(_SAMPLE), 10 * source.matrix(_SAMPLE)])
        for x32 in _all_float32(context, f"{name} float32") if context.exhaustive else [sample]:
            with np.errstate(all="ignore"):
                true = in_float64(x32.astype(np.float64))
            # The true values' own errors are below 2^-20 units of float32.
            judge(name, "float32", x32, float32_errors(getattr(kernels, name)(x32), true), 2.0**-20)
    findings.figures = {"float64 inputs": sizes["float64"], "float32 inputs": sizes["float32"]}
    findings.figures |= {f"{name} ULP": round(error, 4) for name, error in largest.items()}
    return findings


# --- gradients ---


def check_gradients(context: Context) -> Findings:
    """Gradients are those of the reported loss, by central differences, within the differences' own error.

    D(h) runs along a direction of signs through one array. Its truncation error is about a third of D(2h) - D(h);
    rounding adds at most error / h, and half of that to a third of D(2h) - D(h), where ``error`` is the loss's.
    Another half, 2^16 times the loss's error, is for the gradient's own rounding.
    """
    findings = Findings()
    n_derivatives, widest = 0, 0.0
    for case in gradient_cases(context.exhaustive):
        what = f"{case.activation}, {case.output_activation}, {case.loss}"
        context.progress(what)
        for name, along, near, limit, size in derivatives(case, context.backend):
            n_derivatives += 1
            widest = max(widest, limit / size)
            if not abs(along - near) <= limit:
                kind, _, layer = name.partition(".")
                findings.failures.append(
                    f"{what}: epoch 0, layer {int(layer) + 1}, {kind}: the derivative along a direction of signs is "
                    f"{along!r} by backpropagation, {near!r} by central differences whose error is at most {limit:.1e}"
                )
    findings.figures = {"derivatives": n_derivatives, "widest bound": f"{widest:.0e} of the gradient"}
    return findings


# --- trainings ---


def check_trainings(context: Context) -> Findings:
    """Trainings that together use all of the kernels leave the bits of the exact reference behind."""
    findings = Findings(figures={"trainings": len(context.cases), "elements": 0, "largest ULP": 0})
    largest = 0
    for name, case in context.cases.items():
        context.progress(name)
        actual, desired = context.actual[name], context.desired[name]
        findings.digests[name] = digest(actual)
        if findings.digests[name] == digest(desired):
            continue
        findings.failures.append(f"{name}: {first_parting(case, context.backend, actual, desired)}")
        if actual.keys() == desired.keys():
            largest = max(largest, _largest_ulp(actual, desired))
    for name, case in _more_cases() if context.exhaustive else ():
        context.progress(name)
        actual, desired = case.train(context.backend), case.train("exact")
        if digest(actual) != digest(desired):
            findings.failures.append(f"{name}: {first_parting(case, context.backend, actual, desired)}")
    findings.figures["elements"] = sum(array.size for arrays in context.desired.values() for array in arrays.values())
    findings.figures["largest ULP"] = largest
    return findings


def _more_cases() -> Iterator[tuple[str, Case]]:
    """The covering cases for longer, from many starts."""
    for seed in range(1, 31):
        for name, case in covering_cases().items():
            yield f"{name}, seed {seed}", replace(case, seed=100 * seed + case.seed, epochs=10)


def _difference(actual: Arrays, desired: Arrays) -> str:
    """Where the results of two trainings differ."""
    return str(first_difference(actual, desired)) if actual.keys() == desired.keys() else "one diverges"


def _largest_ulp(actual: Arrays, desired: Arrays) -> int:
    differences = (first_difference({name: actual[name]}, {name: desired[name]}) for name in desired)
    return max((difference.max_ulp for difference in differences if difference is not None), default=0)


def check_notebooks(context: Context) -> Findings:
    """The notebooks' networks print their figures, and have the bits of the exact reference."""
    findings = Findings(figures={"figures": 0, "epochs": 0})
    for notebook in NOTEBOOKS:
        context.progress(notebook.name)
        net, figures, errors = _notebook_run(notebook, context.backend)
        desired, _, desired_errors = _notebook_run(notebook, "exact")
        if net != desired or errors.tobytes() != desired_errors.tobytes():
            findings.failures.append(f"{notebook.name}: {_notebook_parting(notebook, context.backend)}")
        shown, expected = [notebook.show(figure) for figure in figures], _printed(notebook)
        parted = [i for i, pair in enumerate(zip(shown, expected, strict=True)) if pair[0] != pair[1]]
        if parted:
            i = parted[0]
            where = f"epoch {i * notebook.report_every}" if notebook.report_every else f"output {i}"
            findings.failures.append(f"{notebook.name}: {where}: prints {shown[i]}, not {expected[i]}")
        findings.digests[notebook.name] = digest({"parameters": net.parameters, "mean_absolute_error": errors})
        findings.figures["figures"] = int(findings.figures["figures"]) + len(shown)
        findings.figures["epochs"] = int(findings.figures["epochs"]) + notebook.updates_before + notebook.epochs
    return findings


def _notebook_run(notebook: Notebook, backend: Any) -> tuple[Network, list[float], NDArray[np.floating]]:
    """A notebook's network after all its updates, its figures, and the errors of its last epochs."""
    net = notebook.network()
    if notebook.updates_before:
        notebook.fit(net, notebook.updates_before, backend)
    return net, *notebook.run(net, backend)


def _notebook_parting(notebook: Notebook, backend: Any) -> str:
    """Where a backend's training parts from that by exact, as far as that is soon."""
    x, y = notebook.x, notebook.y
    comparison = compare(backend, "exact", notebook.network(), x, y, **notebook.settings, epochs=_PREFIX)
    return f"other bits than exact after {_PREFIX} epochs" if comparison.equal else str(comparison)


def _printed(notebook: Notebook) -> list[str]:
    """The figures as printed; where the first weights are unknown, as the notebook's own loop prints them."""
    if notebook.seeded:
        return list(notebook.printed)
    return [notebook.show(figure) for figure in notebook.run_loop(notebook.network(), notebook.epochs)]


# --- releases, threads ---


def check_release(context: Context) -> Findings:
    """The trainings, and the first notebook's, have the digests that this release was published with."""
    release = read_release()
    digests = release_digests(context)
    findings = Findings(digests={"notebook": digests["notebook"]}, figures={"digests": len(digests)})
    if digests.keys() != release.digests.keys():
        odd = sorted(digests.keys() ^ release.digests.keys())
        findings.failures.append(f"the cases are not those of the release: {', '.join(odd)}")
    for name, value in digests.items():
        if release.digests.get(name, value) != value:
            same = _exact_digest(context, name) == release.digests[name]
            findings.failures.append(f"{name}: not the release's digest; exact has {'it' if same else 'another, too'}")
    return findings


def release_digests(context: Context) -> dict[str, str]:
    """Digests of the trainings that a release is known by."""
    digests = {name: digest(arrays) for name, arrays in context.actual.items()}
    context.progress("the notebook")
    return digests | {"notebook": digest(NOTEBOOK.train(context.backend))}


def _exact_digest(context: Context, name: str) -> str:
    return digest(context.cases.get(name, NOTEBOOK).train("exact"))


def check_threads(context: Context) -> Findings:
    """Trainings have the same bits with one thread, with two, and with all."""
    findings = Findings()
    counts = {"1": 1, "2": 2, "all": None}
    cases = {name: case for name, case in context.cases.items() if case.n_samples > contract.BLOCK_ROWS}
    for label, threads in counts.items():
        for name, case in cases.items():
            context.progress(f"{name}, threads={label}")
            arrays, desired = case.train(context.backend, threads=threads), context.actual[name]
            if digest(arrays) != digest(desired):
                findings.failures.append(f"{name} with threads={label}: {_difference(arrays, desired)}")
    findings.figures = {"trainings": len(counts) * len(cases), "threads": f"1, 2, all ({usable_cores()})"}
    return findings


def check_specialized(context: Context) -> Findings:
    """Trainings of small networks have the same bits on kernels compiled for each of them alone."""
    findings, cases = Findings(), small_cases()
    for name, case in cases.items():
        context.progress(name)
        arrays, desired = case.train(context.backend, specialize=True), context.desired_of_small[name]
        findings.digests[name] = digest(arrays)
        if findings.digests[name] != digest(desired):
            findings.failures.append(f"{name}: {_difference(arrays, desired)}")
    findings.figures = {"trainings": len(cases)}
    return findings


#: The rungs of the ladder, in order.
RUNGS: dict[str, Callable[[Context], Findings]] = {
    "functions": check_functions,
    "accuracy": check_accuracy,
    "gradients": check_gradients,
    "trainings": check_trainings,
    "notebooks": check_notebooks,
    "release": check_release,
    "cpus": check_cpus,
    "threads": check_threads,
    "specialized": check_specialized,
}


def names_of(rungs: Iterable[str] | None) -> list[str]:
    """The rungs asked for, in the ladder's order; all of them by default.

    Raises
    ------
    ValueError
        If there is no rung of some name.
    """
    asked = list(RUNGS) if rungs is None else list(rungs)
    unknown = [name for name in asked if name not in RUNGS]
    if unknown:
        raise ValueError(f"rungs must be of {', '.join(RUNGS)}; got {unknown[0]!r}")
    return [name for name in RUNGS if name in asked]
