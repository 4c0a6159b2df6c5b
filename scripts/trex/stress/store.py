"""What was measured, on disk: one JSON file for each unit of work, so that a run goes on where it was interrupted.

::

    OUT/run.json               what was asked for; a run with other settings does not go on in this directory
    OUT/units/NAME.json        a unit that is done, faulty ones too; written whole or not at all
    OUT/report.md, report.html, results.json, *.svg
"""

from __future__ import annotations

import json
import os
from pathlib import Path


class StoreError(Exception):
    """A directory cannot be used; the message says what to do."""


def write(path: Path, value: object) -> None:
    """Writes JSON so that a reader sees all of it or what was there before."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    os.replace(beside, path)


class Store:
    """A directory with the results of one run."""

    def __init__(self, directory: Path, settings: dict, *, resume: bool):
        self.directory, self._units = directory, directory / "units"
        header = directory / "run.json"
        # As JSON has it: no tuples.
        settings = json.loads(json.dumps(settings))
        if header.exists():
            before = json.loads(header.read_text())
            if not resume:
                raise StoreError(f"{directory} has results; go on with --resume, or choose another --out")
            changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
            if changed:
                told = "; ".join(f"{key} was {before.get(key)!r}, is {settings.get(key)!r}" for key in changed)
                raise StoreError(f"{directory} is of another run ({told}); choose another --out")
        self._units.mkdir(parents=True, exist_ok=True)
        write(header, settings)

    def done(self, name: str) -> dict | None:
        """The result of a unit; nothing if it is still to be done."""
        path = self._units / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def keep(self, name: str, result: dict) -> None:
        """Keeps the result of a unit that is done."""
        write(self._units / f"{name}.json", result)
