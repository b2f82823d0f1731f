"""What a recipe says of an environment's server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from kascade.environments.options import Options
from kascade.storage.address import WEB, address_problem
from kascade.task import Domain

HERE = Path(__file__).parent
ENGINES = ("docker", "podman")  # that run images


class Remote(Options):
    """Options of every remote environment. Either `url` names a server, or the others start one."""

    schemes: ClassVar[tuple[str, ...]] = WEB  # of addresses
    ways: ClassVar[tuple[str, ...]] = ("url", "command", "image")  # to name a server
    url: str | None = Field(None, description="where the server listens, such as http://gym:8000")
    command: tuple[str, ...] = Field(
        (),
        strict=False,
        description="a command that starts the server; {port} is replaced by a free port of this machine",
    )
    image: str | None = Field(
        None, description="a container image that holds the server; docker or podman of this machine runs it"
    )
    image_port: PositiveInt = Field(8000, description="the port that the server in the image listens on")
    start_timeout_s: PositiveFloat = Field(120.0, description="how long a started server may take to answer")
    domain: Domain = Field("tool_use", description="the skill that the environment teaches and tests")
    conversations: PositiveInt = Field(64, description="conversations that use the server at once")
    requests_per_second: PositiveFloat | None = Field(None, description="rate limit; None: none")
    timeout_s: PositiveFloat = Field(
        60.0, description="deadline of one request, waiting for retries included"
    )
    attempts: PositiveInt = Field(4, description="tries of a request that may be repeated safely")
    backoff_s: NonNegativeFloat = Field(
        0.5, description="wait before the first repetition; doubled each time"
    )
    max_steps: PositiveInt = Field(
        10, description="answers after which a conversation is graded as it stands"
    )
    reward_range: tuple[float, float] = Field(
        (0.0, 1.0), strict=False, description="the server's lowest and highest reward, scaled to 0 and 1"
    )

    @model_validator(mode="after")
    def _names_one_server(self) -> Remote:
        if sum((self.url is not None, bool(self.starts()))) != 1 or (self.command and self.image):
            raise ValueError(f"give one of {', '.join(self.ways)}")
        if self.url is not None and (problem := address_problem(self.url, self.schemes)):
            raise ValueError(f"url: {problem}")
        if self.reward_range[0] >= self.reward_range[1]:
            raise ValueError("reward_range: the lowest reward comes first, then a higher one")
        return self

    def starts(self) -> tuple[str, ...]:
        """The command that starts the server; nothing where `url` names one that runs."""
        if self.image is None:
            return self.command
        engine = next((one for one in ENGINES if shutil.which(one)), ENGINES[0])
        published = f"127.0.0.1:{{port}}:{self.image_port}"
        return (engine, "run", "--rm", "--init", "--publish", published, self.image)

    def scaled(self, reward: float) -> float:
        """A server's reward in [0, 1]. Raises ValueError outside the range that was declared."""
        low, high = self.reward_range
        if not low <= reward <= high:  # a NaN is in no range
            raise ValueError(f"reward {reward} is outside reward_range [{low:g}, {high:g}]")
        return (reward - low) / (high - low)


class Packaged(Remote):
    """Of servers that an installed Python package holds, beside all other ways to name one."""

    ways: ClassVar[tuple[str, ...]] = (*Remote.ways, "package")
    server_program: ClassVar[str]  # in this folder; runs where the package is installed
    package: str | None = Field(None, description="name of an environment that an installed package holds")
    python: str = Field(
        "python", description="interpreter of the environment where that package is installed, for `package`"
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="fields of the environment's own configuration, for `package`"
    )

    def starts(self) -> tuple[str, ...]:
        """As the base class; also the package's own servers by name."""
        if self.package is None:
            return super().starts()
        return self._program("{port}")

    def prints_rows(self) -> tuple[str, ...]:
        """The command that prints the rows of `package`, a line each."""
        return self._program("rows")

    def _program(self, what: str) -> tuple[str, ...]:
        program = str(HERE / self.server_program)
        return (self.python, program, self.package or "", what, json.dumps(self.config))

    @model_validator(mode="after")
    def _package_alone(self) -> Packaged:
        if self.package is not None and (self.command or self.image):
            raise ValueError(f"give one of {', '.join(self.ways)}")
        return self


class NemoGymOptions(Packaged):
    """Of NeMo-Gym resource servers."""

    server_program: ClassVar[str] = "serve_gym.py"
    package: str | None = Field(
        None, description="name of a resource server that the package nemo-gym holds, such as mcqa"
    )
    style: Literal["auto", "single", "tools", "game"] = Field(
        "auto",
        description="single: one answer, then verify. tools: calls over HTTP first. game: reset and step. "
        "auto: what the server's own description says",
    )


class OpenEnvOptions(Remote):
    """Of OpenEnv servers."""

    action_field: str = Field("message", description="field of the action that takes the answer's text")
    observation_field: str | None = Field(
        None, description="field of an observation that the policy reads; None: all of it, as JSON"
    )
    json_actions: bool = Field(False, description="the answer itself is the action, as a JSON object")


class VerifiersOptions(Packaged):
    """Of environment servers of verifiers. They listen at tcp://HOST:PORT."""

    schemes: ClassVar[tuple[str, ...]] = ("tcp",)
    server_program: ClassVar[str] = "serve_verifiers.py"
    package: str | None = Field(
        None, description="name of a taskset that is installed beside verifiers, such as glossary"
    )
    gateway_host: str = Field(
        "127.0.0.1",
        description="address of this machine by which the server's episodes reach the policy",
    )
    episode_timeout_s: PositiveFloat = Field(
        600.0, description="seconds in which an episode must ask its model again, or end"
    )
