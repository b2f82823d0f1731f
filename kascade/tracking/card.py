"""The model card: what the report says, as Markdown. Regressions and failures are in it."""

from __future__ import annotations

import re
from pathlib import Path

from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking import wording
from kascade.tracking.provenance import Provenance, head_line, provenance
from kascade.tracking.report import ended, template_environment
from kascade.tracking.summarise import summarise
from kascade.tracking.summary import RunSummary

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!])")


def write_model_card(run: Path) -> Path:
    """Write `model_card.md` of a run, whole or partial, and return its path."""
    path = RunFolder(run).model_card
    summary = summarise(run)
    write_text(path, render_card(summary, provenance(run, summary)))
    return path


def render_card(summary: RunSummary, origin: Provenance) -> str:
    """The card. What a user or a model wrote is escaped, so that it cannot become markup."""
    environment = template_environment(autoescape=False)
    environment.filters["plain"] = plain
    template = environment.get_template("model_card.md.jinja")
    head = head_line(origin, summary)
    page = template.render(summary=summary, origin=origin, head=head, wording=wording, ended=ended)
    return page.strip() + "\n"


def plain(text: str) -> str:
    """Text as Markdown shows it literally, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
