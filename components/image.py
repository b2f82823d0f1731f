"""What all components share: the image that they run in, and how a function becomes a component."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from kfp import dsl

from kascade.version import __version__

# Where nothing else is said: the image as `make images` calls it, or what the one who compiles names.
IMAGE = os.environ.get("KASCADE_IMAGE") or f"kascade:{__version__}"


def step_component(
    function: Callable[..., Any] | None = None, *, handed_on: Sequence[Any] = ()
) -> Callable[..., Any]:
    """A lightweight component whose image already holds the library: nothing is installed when it runs.

    handed_on: what of its task's pod settings the function gets as its `dsl.TaskConfig`.
    """
    passthroughs = {"task_config_passthroughs": list(handed_on)} if handed_on else {}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        make = dsl.component(base_image=IMAGE, install_kfp_package=False, **passthroughs)
        component: Callable[..., Any] = make(function)
        return component

    return decorate if function is None else decorate(function)
