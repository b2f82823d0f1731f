"""The README of every component, made from its code and its metadata: `python -m components.document`.

With --check nothing is written, and a README that has drifted is an error.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent


def component_names() -> list[str]:
    """Folders that hold a component."""
    return sorted(path.parent.name for path in ROOT.glob("*/component.py"))


def readme(name: str) -> str:
    """The README of one component."""
    module = importlib.import_module(f"components.{name}.component")
    component = getattr(module, name)
    spec = component.component_spec
    metadata: dict[str, Any] = yaml.safe_load((ROOT / name / "metadata.yaml").read_text(encoding="utf-8"))
    lines = [f"# {name}", "", str(module.__doc__).strip(), ""]
    lines += [str(component.python_func.__doc__).strip(), ""]
    lines += _table("Inputs", spec.inputs or {})
    lines += _table("Outputs", spec.outputs or {})
    needs = ", ".join(f"Kubeflow {d['name']} {d['version']}" for d in metadata["dependencies"]["kubeflow"])
    lines += [f"Stability: {metadata['stability']}. Needs: {needs}.", ""]
    lines += [
        f"Tags: {', '.join(metadata['tags'])}. Last verified: {str(metadata['lastVerified'])[:10]}.",
        "",
    ]
    lines += ["<!-- Made by `python -m components.document`; change the code instead. -->"]
    return "\n".join(lines) + "\n"


def _table(title: str, values: dict[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| `{name}` | {value.type.lower()} |" for name, value in values.items()]
    return [f"## {title}", "", "| name | type |", "|---|---|", *rows, ""]


def drifted() -> list[str]:
    """Components whose README is not what their code says."""
    found = []
    for name in component_names():
        path = ROOT / name / "README.md"
        if not path.exists() or path.read_text(encoding="utf-8") != readme(name):
            found.append(name)
    return found


def main(arguments: list[str]) -> None:
    if arguments == ["--check"]:
        if names := drifted():
            sys.exit(f"READMEs have drifted: {', '.join(names)}; run python -m components.document")
        return
    for name in component_names():
        (ROOT / name / "README.md").write_text(readme(name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
