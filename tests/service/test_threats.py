"""The threat model names tests that exist, for every line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_line_of_the_threat_model_is_held_by_tests_that_exist() -> None:
    there = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    lines = [
        line
        for line in (ROOT / "service" / "THREATS.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| does", "| fault", "| ---"))
    ]
    assert len(lines) > 15
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line.split("|")[-2])
        assert named, f"no test holds this: {line}"
        assert set(named) <= there, f"{set(named) - there} do not exist: {line}"
