"""Serve the environment that `openenv init` makes: `python serve_openenv.py FOLDER PORT`.

The folder is made on first use. The environment echoes messages and pays a tenth per character.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import uvicorn

folder, port = Path(sys.argv[1]), int(sys.argv[2])
if not (folder / "echoes").exists():
    folder.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).with_name("openenv")
    subprocess.run([tool, "init", "echoes", "--output-dir", str(folder)], check=True, stdout=sys.stderr)
sys.path[:0] = [str(folder / "echoes")]
from models import EchoesAction, EchoesObservation  # noqa: E402
from openenv.core.env_server.http_server import create_fastapi_app  # noqa: E402
from server.echoes_environment import EchoesEnvironment  # noqa: E402

app = create_fastapi_app(EchoesEnvironment, EchoesAction, EchoesObservation, max_concurrent_envs=128)
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
