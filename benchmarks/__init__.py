"""Benchmark suites for asv and pytest-benchmark: thin files over `fastnet.bench`.

Each environment has its own cache of kernels, in which every commit has a folder: its name is a digest of the sources.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("FASTNET_CACHE_DIR", str(Path(sys.prefix) / "fastnet-cache"))
