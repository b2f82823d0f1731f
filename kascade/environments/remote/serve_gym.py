"""Run one of NeMo-Gym's own resource servers: `python serve_gym.py SERVER PORT [CONFIG as JSON]`.

`python serve_gym.py SERVER rows` prints the example rows that come with it instead.
Runs in the environment that holds `nemo-gym`, without its head server: only the resource server is needed.
`judge_port` in CONFIG is where a model server (`/v1/responses`) listens on loopback, for servers that ask.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(name: str, port: int, given: dict[str, Any]) -> None:
    """Serve until ended."""
    import uvicorn
    from nemo_gym.base_resources_server import SimpleResourcesServer
    from nemo_gym.server_utils import BaseServerConfig, ServerClient
    from omegaconf import OmegaConf

    client = ServerClient.model_construct()
    if (judge_port := given.pop("judge_port", None)) is not None:
        judge = {"judge": {"responses_api_models": {"judge": {"host": "127.0.0.1", "port": judge_port}}}}
        head = BaseServerConfig(host="127.0.0.1", port=judge_port)
        client = ServerClient(head_server_config=head, global_config_dict=OmegaConf.create(judge))
        os.environ["NEMO_GYM_CONFIG_DICT"] = json.dumps(judge)  # as the head server hands it to its servers
    module = importlib.import_module(f"resources_servers.{name}.app")
    kinds: list[Any] = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, SimpleResourcesServer)
        and value.__module__ == module.__name__
    ]
    (kind,) = kinds
    os.chdir(Path(str(module.__file__)).parent)  # servers find their prompts there
    config = kind.model_fields["config"].annotation(
        host="127.0.0.1", port=port, entrypoint="app.py", name=name, **given
    )
    server = kind(config=config, server_client=client)
    uvicorn.run(server.setup_webserver(), host="127.0.0.1", port=port, log_level="error")


def print_rows(name: str) -> None:
    """The server's own example rows; most of its data sets are elsewhere."""
    module = importlib.import_module(f"resources_servers.{name}")
    for folder in module.__path__:
        sys.stdout.write((Path(folder) / "data" / "example.jsonl").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, where a file is called like the package
    if sys.argv[2] == "rows":
        print_rows(sys.argv[1])
        sys.exit()
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
