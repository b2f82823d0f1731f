"""What all components share: the image that they run in, and how a function becomes a component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kfp import dsl

import kascade

IMAGE = f"kascade:{kascade.__version__}"


def step_component(function: Callable[..., Any]) -> Callable[..., Any]:
    """A lightweight component whose image already holds the library: nothing is installed when it runs."""
    component: Callable[..., Any] = dsl.component(base_image=IMAGE, install_kfp_package=False)(function)
    return component
