"""Makes packages ready to be copied into an image: `python compact.py FOLDER... [--keep-all]`.

Bytecode is written once, here: an image's files cannot be written when it runs, and every start of a step
would compile thousands of modules anew (4 of 8 CPU seconds). It is never checked against its source, which
does not change either. The packages' own tests and headers, about as large as the bytecode, go in exchange.
"""

from __future__ import annotations

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def drop_unused(folder: Path) -> None:
    """Remove tests, as modules and as programs, and C headers: nothing is compiled where this lands."""
    for name in ("tests", "test", "include"):
        for path in sorted(folder.rglob(name)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
    for path in folder.rglob("bin/*test*"):
        path.unlink()


def write_bytecode(folder: Path) -> None:
    """Compile all modules below `folder`; templates that are no Python are passed over."""
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=2, workers=0, force=True, invalidation_mode=mode)


if __name__ == "__main__":
    for place in (Path(argument) for argument in sys.argv[1:] if argument != "--keep-all"):
        if "--keep-all" not in sys.argv:
            drop_unused(place)
        write_bytecode(place)
