"""`kascade serve` and `kascade chat`: talk to a checkpoint, from programs and in the terminal."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kascade.commands.output import console, refuse_taken_port
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.serving.terminal import Speaker

Checkpoint = Annotated[
    str,
    typer.Argument(help="A run's, checkpoint's or model's folder, a reference, a hub id or builtin://NAME."),
]
Template = Annotated[str, typer.Option(help="Chat template: own, nemotron-cascade-1 or nemotron-cascade-2.")]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(chat)


def serve(
    checkpoint: Checkpoint,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model. Default: its folder.")
    ] = None,
    template: Template = "own",
    engine: Annotated[str, typer.Option(help="native, or vllm where it is installed.")] = "native",
    max_tokens: Annotated[
        int, typer.Option(help="Most tokens of an answer when the client names no limit.", min=1)
    ] = 1024,
    api_key_variable: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key clients must send.")
    ] = None,
) -> None:
    """Serve a checkpoint behind an OpenAI-compatible API.

    Example: kascade serve runs/mine --port 8000
    """
    key = _api_key(api_key_variable, host)
    if engine == "vllm":
        _become_vllm(checkpoint, host, port, name, key)
    elif engine != "native":
        raise UserError(Fault("--engine", f"unknown engine {engine!r}", "native, vllm"))
    refuse_taken_port(host, port)
    import uvicorn

    from kascade.serving.app import make_app
    from kascade.serving.served import Served

    served = Served.load(checkpoint, name=name, template=template)
    console().print(f"{served.name} is served at http://{host}:{port}/v1 (Ctrl-C ends it)", markup=False)
    app = make_app(served, default_tokens=max_tokens, api_key=key)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


def _api_key(variable: str | None, host: str) -> str | None:
    if variable is None:
        if host not in LOOPBACK:
            console().print(
                f"every host that reaches {host} may use this model: no API key is set", style="yellow"
            )
        return None
    if not os.environ.get(variable):
        raise UserError(
            Fault("--api-key-variable", f"the environment has no {variable}", remedy=f"set {variable}")
        )
    return os.environ[variable]


def _become_vllm(checkpoint: str, host: str, port: int, name: str | None, key: str | None) -> None:
    """Replace this process by vLLM's own server."""
    from kascade.serving.served import checkpoint_folder

    program = shutil.which("vllm")
    if program is None:
        remedy = "install vllm, or use --engine native"
        raise UserError(Fault("--engine", "vllm is not installed here", remedy=remedy))
    folder = checkpoint_folder(checkpoint)
    words = ["vllm", "serve", *_for_vllm(folder, name or folder.name), "--host", host, "--port", str(port)]
    if key is not None:
        os.environ["VLLM_API_KEY"] = key
    os.execv(program, words)


def _for_vllm(folder: Path, name: str) -> list[str]:
    """What vLLM loads: the model, or an adapter's base with the adapter under its own name."""
    from kascade.models.adapters import adapter_config
    from kascade.models.load import is_adapter
    from kascade.storage.checkpoint import base_of

    if not is_adapter(folder):
        return [str(folder), "--served-model-name", name]
    rank = str(adapter_config(folder)["r"])
    adapted = ["--enable-lora", "--max-lora-rank", rank, "--lora-modules", f"{name}={folder}"]
    return [str(base_of(folder)[1]), *adapted]


def chat(
    checkpoint: Checkpoint,
    other: Annotated[str | None, typer.Argument(help="A second checkpoint, to answer beside it.")] = None,
    *,
    template: Template = "own",
    thinking: Annotated[bool, typer.Option(help="Let the model think before it answers.")] = False,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0)] = 0.0,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)] = 512,
) -> None:
    """Talk to one checkpoint, or to two side by side. Reads one message per line.

    Example: kascade chat runs/mine/checkpoints/base/train-1a2b runs/mine
    """
    from kascade.serving.terminal import Settings, Speaker, talk

    settings = Settings(thinking=thinking, temperature=temperature, max_tokens=max_tokens)
    speakers: list[Speaker] = [
        Speaker.load(named, template) for named in (checkpoint, other) if named is not None
    ]
    talk(speakers, settings)
