"""Makes packages ready to be copied into an image: `python compact.py FOLDER... [--keep-tests]`.

Bytecode is written once, here: an image's files cannot be written when it runs, and every start of a step
would compile thousands of modules anew (4 of 8 CPU seconds). It is never checked against its source, which
does not change either. The packages' own tests, about as large as the bytecode, go in exchange.
"""

from __future__ import annotations

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def drop_tests(folder: Path) -> None:
    """Remove every folder `tests` or `test` below `folder`."""
    for name in ("tests", "test"):
        for path in sorted(folder.rglob(name)):
            if path.is_dir():
                shutil.rmtree(path)


def write_bytecode(folder: Path) -> None:
    """Compile all modules below `folder`; templates that are no Python are passed over."""
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=2, workers=0, force=True, invalidation_mode=mode)


if __name__ == "__main__":
    for place in (Path(argument) for argument in sys.argv[1:] if argument != "--keep-tests"):
        if "--keep-tests" not in sys.argv:
            drop_tests(place)
        write_bytecode(place)
