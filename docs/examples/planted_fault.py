"""Plants a fault of one bit in the back-projection, and finds it in three ways."""

import tempfile
from pathlib import Path

from fastnet.testing import assert_max_ulp, check, compare, record
from fastnet.testing.faults import FAULTS


def main() -> None:
    """Train with and without the fault, and print what each tool says."""
    fault = FAULTS["flipped_sum"]
    network, (X, y, _) = fault.case.network(), fault.case.data()
    settings = fault.case.settings

    print("# What training leaves")
    sound, faulty = network.copy(), network.copy()
    sound.fit(X, y, **settings)
    faulty.fit(X, y, backend=fault.backend(), **settings)
    try:
        assert_max_ulp(faulty.weights[0], sound.weights[0])
    except AssertionError as error:
        print(error)

    print("\n# Against a golden")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.golden"
        record(path, network, X, y, author="example", **settings)
        print("the kernels:", "passed" if check(path).passed else "failed")
        report = str(check(path, backend=fault.backend())).replace(str(path), path.name)
        print("\n".join(line for line in report.splitlines() if not line.startswith("  recorded on ")))

    print("\n# Step by step")
    print(compare("numba", "exact", network, X, y, **settings))
    print(compare(fault.backend(), "exact", network, X, y, **settings))


if __name__ == "__main__":
    main()
