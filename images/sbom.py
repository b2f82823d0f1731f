"""What an image is made of, as a CycloneDX 1.6 document: `python sbom.py NAME VERSION`, inside the image.

Python distributions as the running interpreter sees them, Debian packages as dpkg does.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from typing import Any

Component = dict[str, Any]


def python_components() -> Iterator[Component]:
    """Every installed distribution, once, by normalised name."""
    found = {
        normalised(name): distribution for distribution in distributions() if (name := distribution.name)
    }
    for name in sorted(found):
        distribution = found[name]
        licence = licence_of(distribution)
        yield {
            "type": "library",
            "name": name,
            "version": distribution.version,
            "purl": f"pkg:pypi/{name}@{distribution.version}",
            "bom-ref": f"pypi:{name}",
            **({"licenses": [{"license": {"name": licence}}]} if licence else {}),
        }


def normalised(name: str) -> str:
    """A distribution's name as package URLs have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(distribution: Distribution) -> str:
    """The licence in a few words, "" when the distribution does not say."""
    metadata = distribution.metadata
    for field in ("License-Expression", "License"):
        text = (metadata.get(field) or "").strip()
        if text and text != "UNKNOWN":
            return text.splitlines()[0][:100]
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    return classifiers[0].rpartition(" :: ")[2] if classifiers else ""


def debian_components() -> Iterator[Component]:
    """Debian's packages; none where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in sorted(listed.splitlines()):
        name, version, architecture = line.split(" ")
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={architecture}",
            "bom-ref": f"deb:{name}:{architecture}",
        }


def document(name: str, version: str) -> dict[str, Any]:
    """The whole bill; the same image gives the same text."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version, "bom-ref": name}},
        "components": [*python_components(), *debian_components()],
    }


if __name__ == "__main__":
    json.dump(document(sys.argv[1], sys.argv[2]), sys.stdout, indent=1)
