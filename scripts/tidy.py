#!/usr/bin/env python3
"""Style as a test: what formatters and linters do not see. Prints every fault and exits 1 if there is any."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {".git", ".lab", "target", "corpus", "artifacts", "__pycache__", ".pytest_cache"}
# Faults on purpose.
EXEMPT = ("dataplane/tests/config/broken/",)
SOURCES = {".rs", ".py", ".sh", ".c", ".h", ".toml", ".md"}

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 70
# Tests tell a story from start to end.
TEST_LINES_MAX = 100
LINE_MAX = {".rs": 110, ".py": 120, ".sh": 120}

# Where `unsafe` may be written; see the architecture.
UNSAFE_ROOMS = ("dpdk-sys/", "dpdk/", "dataplane/src/prefetch.rs",
                "dataplane/src/conntrack/tags.rs", "dataplane/tests/", "eswitch/src/pmd/",
                "traffic/src/pmd/", "src/alloc")

# An owner makes it a plan: `TODO(name): ...`.
UNOWNED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\([\w-]+\))")
MACHINE_PATH = re.compile(r"(?<![\w.])/(root|home|work|Users)/")
CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} )")
UNSAFE = re.compile(r"\bunsafe\b(?!_)")
# What the newest rustc takes and Rust 1.85 does not: a chain of conditions one of which is a `let`, as
# rustfmt lays it out, and the length of an array left to be inferred.
TOO_NEW = re.compile(r"&&\s+let\b|^( *)(?:} else )?(?:if|while) let\b[^{}]*?\n\1    &&|; _\]|Vec<[^<>]*, _>"
                     r"|\b(?:if|while) let\b[^{}()|\n]*(?:\([^()\n]*\)[^{}()|\n]*)*&& ", re.MULTILINE)
FUNCTION = re.compile(r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)")

Fault = tuple[int, str]


def main() -> int:
    faults = 0
    for path in sources():
        relative = path.relative_to(ROOT).as_posix()
        if relative.startswith(EXEMPT):
            continue
        for line, text in check(relative, path.read_text()):
            print(f"{relative}:{line}: {text}")
            faults += 1
    print(f"tidy: {faults} faults" if faults else "tidy: nothing to say")
    return 1 if faults else 0


def sources() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT).parts
        if path.suffix in SOURCES and path.is_file() and not SKIPPED.intersection(inside):
            yield path


def check(relative: str, text: str) -> Iterator[Fault]:
    """All faults of one file."""
    lines = text.splitlines()
    yield from check_lines(relative, lines)
    if len(lines) > FILE_LINES_MAX and not relative.endswith(".md"):
        yield len(lines), f"{len(lines)} lines; split it (at most {FILE_LINES_MAX})"
    if text and not text.endswith("\n"):
        yield len(lines), "no newline at the end"
    if relative.endswith(".rs"):
        yield from check_rust(relative, lines)
    elif relative.endswith(".py"):
        yield from check_python(text)


def check_lines(relative: str, lines: list[str]) -> Iterator[Fault]:
    longest = LINE_MAX.get(Path(relative).suffix)
    for number, line in enumerate(lines, start=1):
        if relative != "scripts/tidy.py":
            if found := UNOWNED.search(line):
                yield number, f"{found[1]} without an owner"
            if found := MACHINE_PATH.search(line):
                yield number, f"a path of somebody's machine: {found[0]}"
        if CONFLICT.match(line):
            yield number, "a merge conflict"
        if line != line.rstrip() and not relative.endswith(".md"):
            yield number, "white space at the end of the line"
        # rustfmt sees to code; what it cannot break is a string literal.
        formatted = relative.endswith(".rs") and not line.lstrip().startswith("//")
        if longest and len(line) > longest and not formatted and "http" not in line:
            yield number, f"{len(line)} columns (at most {longest})"


def check_rust(relative: str, lines: list[str]) -> Iterator[Fault]:
    is_module = "/src/" in f"/{relative}" and not relative.endswith("/tests.rs")
    if is_module and lines and not lines[0].startswith("//!"):
        yield 1, "a module without a header: say what lives here (//!)"
    if not relative.startswith(UNSAFE_ROOMS):
        for number, line in enumerate(lines, start=1):
            code = line.split("//")[0]
            if UNSAFE.search(code) and "unsafe_code" not in code:
                yield number, "unsafe outside its rooms"
    code = "\n".join(line.split("//")[0].rstrip() for line in lines)
    for found in TOO_NEW.finditer(code):
        yield code.count("\n", 0, found.start()) + 1, "Rust 1.85 has no let chains and infers no array lengths"
    start = None
    for number, line in enumerate(lines, start=1):
        if start is None and (found := FUNCTION.match(line)):
            # A declaration, or a body on the same line, ends where it starts.
            start = None if line.rstrip().endswith((";", "}")) else (number, found[1], found[2])
        elif start and line.rstrip() in (f"{start[1]}}}", f"{start[1]}}};"):
            most = TEST_LINES_MAX if "/tests/" in f"/{relative}" else FUNCTION_LINES_MAX
            yield from check_length(start[2], start[0], number, most)
            start = None


def check_python(text: str) -> Iterator[Fault]:
    tree = ast.parse(text)
    if text and ast.get_docstring(tree) is None:
        yield 1, "a module without a docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield from check_length(node.name, node.lineno, node.end_lineno or node.lineno, FUNCTION_LINES_MAX)


def check_length(name: str, first: int, last: int, most: int) -> Iterator[Fault]:
    length = last - first + 1
    if length > most:
        yield first, f"{name} has {length} lines (at most {most})"


if __name__ == "__main__":
    sys.exit(main())
