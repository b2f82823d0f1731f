"""Small recipes that the tests change one field at a time."""

from __future__ import annotations

from pathlib import Path

SMALL = """\
kascade: 1
name: small
model: {source: "builtin://mini-nemotron-h"}
stages:
  - kind: sft
    name: sft
    steps: 10
    data: [{source: {environment: mcqa}}]
  - kind: rlhf
    name: chat_teacher
    parent: sft
    side_branch: true
    steps: 5
    data: [{source: {environment: genrm_compare}}]
  - kind: if_rl
    name: if_rl
    steps: 10
    data: [{source: {environment: instruction_following}}]
  - kind: mopd
    name: mopd
    steps: 10
    teachers: {chat: chat_teacher, instruction_following: if_rl}
    data: [{source: {environment: genrm_compare}}]
benchmarks:
  - {name: knowledge, source: {environment: mcqa}, tasks: 20}
  - {name: chat, source: {environment: genrm_compare}, tasks: 20}
scales:
  tiny: {sft: {steps: 1}}
"""


def write_recipe(folder: Path, text: str = SMALL, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
