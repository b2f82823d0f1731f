"""Serve an environment by verifiers' own server: `python serve_verifiers.py TASKSET PORT`.

`python serve_verifiers.py TASKSET rows` prints its tasks, a line each. `python serve_verifiers.py TASKSET own
ADDRESS URL` plays the first tasks by verifiers' own client, its model behind URL, and prints their rewards.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "verifiers_environments")]

from verifiers.v1.configs.client import EvalClientConfig  # noqa: E402
from verifiers.v1.serve import EnvClient, serve_env  # noqa: E402
from verifiers.v1.types import SamplingConfig  # noqa: E402
from verifiers.v1.utils.loaders import load_environment, resolve_env_config  # noqa: E402

taskset, what = sys.argv[1:3]
seat = {"say_more": "player"}.get(taskset, "agent")
agent = {"harness": {"id": "plain_chat"}, "runtime": {"type": "subprocess"}}
config = resolve_env_config({"taskset": {"id": taskset}, seat: agent})
tasks = [task.data.model_dump(mode="json", exclude_none=True) for task in load_environment(config).taskset]


async def own(address: str, url: str) -> None:
    client = EnvClient(address)
    for data in tasks[:8]:
        config = EvalClientConfig(base_url=url)
        episode = await client.run(config, "policy", SamplingConfig(), data)
        print(json.dumps(episode.traces[0].reward))
    await client.close()


if what == "rows":
    print("\n".join(json.dumps(data) for data in tasks))
elif what == "own":
    asyncio.run(own(*sys.argv[3:5]))
else:
    serve_env(config=config, max_workers=1, address=f"tcp://127.0.0.1:{what}")
