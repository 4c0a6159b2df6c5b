#!/usr/bin/env python3
"""Faults under load, with latency distributions; see --help and docs/faults.md."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent


def tools() -> Path:
    """The Python that scripts/setup.sh has given the libraries in scripts/python-tools.txt."""
    listed = hashlib.sha256((SCRIPTS / "python-tools.txt").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / f"millrace/python-tools-{listed}"


def main() -> int:
    python = tools() / "bin/python"
    # A Python of the environment's own tells so by its prefix.
    if Path(sys.prefix) != tools():
        if not (tools() / "complete").exists():
            print(f"run.py: {tools()} is not there: run scripts/setup.sh", file=sys.stderr)
            return 2
        os.execv(python, [str(python), str(HERE / "run.py"), *sys.argv[1:]])
    sys.dont_write_bytecode = True
    # Documents and plots are those of the load tests.
    sys.path[:0] = [str(HERE), str(SCRIPTS / "trex"), str(SCRIPTS)]
    from inject.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
