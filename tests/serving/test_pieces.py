"""An answer's text is told apart in the same way, however it is cut into tokens."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.example_run import short_run

from kascade.errors import UserError
from kascade.serving.pieces import Pieces, tool_calls
from kascade.serving.served import checkpoint_folder
from kascade.serving.text import Detokenizer


def test_a_run_stands_for_its_final_checkpoint_wherever_it_is(tmp_path: Path) -> None:
    """`serve` and `chat` take what `compare` takes."""
    made = short_run(tmp_path / "run")
    with pytest.raises(UserError, match="has no final checkpoint yet"):
        checkpoint_folder(str(made.root))
    made.layout.write_final(made.parent)
    made.root.rename(tmp_path / "moved")
    found = checkpoint_folder(str(tmp_path / "moved"))
    assert found.is_relative_to(tmp_path / "moved") and "if_rl" in found.parts


CALL = '<tool_call>{"name": "look", "arguments": {"key": "a"}}</tool_call>'


def told(parts: list[str], *, thinking: bool = False, calls: bool = True, stops: tuple[str, ...] = ()):
    """Text by kind, of an answer that comes in these parts."""
    pieces = Pieces(thinking, calls, stops)
    said: dict[str, str] = {}
    for kind, text in [piece for part in parts for piece in pieces.add(part)] + list(pieces.finish()):
        said[kind] = said.get(kind, "") + text
    return said


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("plain words", False, {"content": "plain words"}),
        ("so</think>\n\nyes", True, {"reasoning": "so", "content": "yes"}),
        ("<think>so</think>yes", False, {"reasoning": "so", "content": "yes"}),
        ("never closed", True, {"reasoning": "never closed"}),
        ("a < b and <thing>", False, {"content": "a < b and <thing>"}),
        (f"Let me look.{CALL}", False, {"content": "Let me look.", "calls": CALL}),
        (f"so</think>{CALL}", True, {"reasoning": "so", "calls": CALL}),
        ("<thi", False, {"content": "<thi"}),
        ("", False, {}),
    ],
)
def test_kinds_of_text(text: str, thinking: bool, expected: dict[str, str]) -> None:
    assert told([text], thinking=thinking) == expected


def test_without_tools_nothing_is_a_call() -> None:
    assert told([CALL], calls=False) == {"content": CALL}


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it() -> None:
    assert told(["one EN", "D two"], stops=("END",)) == {"content": "one "}
    assert told(["one EN"], stops=("END",)) == {"content": "one EN"}


@settings(max_examples=400)
@given(
    text=st.lists(
        st.sampled_from(["<think>", "</think>", "<tool_call>", "a", " ", "<", "</", "END", "\n"]), max_size=12
    ).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    thinking=st.booleans(),
    calls=st.booleans(),
    stops=st.sampled_from([(), ("END",)]),
)
def test_cuts_do_not_change_what_is_said(
    text: str, cuts: list[int], thinking: bool, calls: bool, stops: tuple[str, ...]
) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[a:b] for a, b in pairwise(places)]
    whole = told([text], thinking=thinking, calls=calls, stops=stops)
    assert told(parts, thinking=thinking, calls=calls, stops=stops) == whole


def test_calls_have_the_apis_form() -> None:
    (call,) = tool_calls(CALL, [], "x")
    assert call == {
        "id": "call_x_0",
        "type": "function",
        "function": {"name": "look", "arguments": '{"key": "a"}'},
    }
    assert tool_calls("<tool_call>nonsense", [], "x") == []


@settings(max_examples=400)
@given(text=st.text(max_size=30))
def test_bytes_of_a_character_wait_for_each_other(text: str) -> None:
    """Tokens are bytes here: the hardest case."""

    def decode(ids: object) -> str:
        return bytes(ids).decode("utf-8", errors="replace")  # type: ignore[call-overload]

    taken = Detokenizer(decode, frozenset({256}))
    given_parts = [taken.add(byte) for byte in text.encode()]
    assert "".join([*given_parts, taken.finish()]) == text
