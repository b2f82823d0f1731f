"""The page and the card: true, self-contained, safe, and whole in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.example_run import BENCHMARKS, short_run

from kascade.guard.scores import read_score, write_score
from kascade.storage.checkpoint import CheckpointRef
from kascade.tracking.card import write_model_card
from kascade.tracking.explain import explain
from kascade.tracking.report import LONGEST_ANSWER, clipped, write_report
from kascade.tracking.summarise import summarise

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}| a | ![x](http://evil.example/p.png)"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>
const root = document.documentElement;
const svgs = [...document.querySelectorAll("svg")];
root.dataset.probe = JSON.stringify({
  overflow: root.scrollWidth - root.clientWidth,
  untitled: svgs.filter((svg) => !svg.querySelector(":scope > title")?.textContent).length,
  figures: svgs.length, buttons: document.querySelectorAll("th button").length,
});
</script>"""


class Tags(HTMLParser):
    """Counts start tags and keeps the addresses a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture(scope="session")
def page(whole: Path) -> str:
    return write_report(whole).read_text(encoding="utf-8")


def test_page_shows_every_part(whole: Path, page: str) -> None:
    sections = re.findall(r'<li><a href="#([a-z]+)">', page)
    assert len(sections) == 10
    assert all(f'id="{section}"' in page for section in sections)
    assert page.count("through all stages</title>") == 9
    assert page.count('class="mark regressed"') > 1
    assert "2 steps: update skipped" in page
    heads = re.search(r"avg@k</th>.*?pass@1</th>.*?pass@k</th>", page, re.DOTALL)
    assert heads is not None
    summary = summarise(whole)
    rows = re.findall(r"<tr><td>needle</td><td>([^<]+)</td>(.*?)</tr>", page, re.DOTALL)
    assert [id for id, _ in rows] == [point.attempt.id for point in summary.history("needle")]
    for (_, cells), found in zip(rows, summary.history("needle"), strict=True):
        score, k = found.point.score, found.point.score.num_samples
        for value in (score.mean, score.pass_at(k), *score.interval(), *score.pass_interval(k)):
            assert f"{value:.3f}" in cells
    assert "the sandbox was lost" in page


def test_page_fetches_nothing(page: str) -> None:
    addresses = Tags(page).addresses
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)


def test_credentials_of_an_address_are_not_shown(page: str) -> None:
    assert ":secret" not in page
    assert "@tracking.example" in page


def test_hostile_answers_stay_text(tmp_path: Path) -> None:
    run = short_run(tmp_path, answer=HOSTILE)
    page = write_report(run.root).read_text(encoding="utf-8")
    tags = Tags(page)
    assert tags.count["script"] == 1
    assert "img" not in tags.count
    assert tags.handlers == []
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page


def test_hostile_names_cannot_become_markup_in_the_card(tmp_path: Path) -> None:
    run = short_run(tmp_path)
    path = run.layout.resolved_recipe
    path.write_text(
        path.read_text().replace("A cascade on the miniature", "<b>x</b> ![y](http://evil.example)")
    )
    card = write_model_card(run.root).read_text(encoding="utf-8")
    assert "<b>" not in card
    assert r"\!\[y\]" in card


def test_card_tells_regressions_and_failures(whole: Path) -> None:
    card = write_model_card(whole).read_text(encoding="utf-8")
    assert "RLHF made needle fall" in card
    assert "the recovery failed" in card
    assert "| 7. Code RL | code\\_rl | rolled back |" in card
    assert all(re.search(rf"^\| {name} \|", card, re.M) for name in BENCHMARKS)


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "no readable recipe" in page
    assert "recipe.resolved.json" in page
    assert "no readable recipe" in write_model_card(tmp_path).read_text(encoding="utf-8")


def test_the_same_folder_gives_the_same_page(whole: Path, page: str) -> None:
    assert write_report(whole).read_text(encoding="utf-8") == page


def test_long_answers_say_how_much_is_left_out() -> None:
    assert clipped("x" * (LONGEST_ANSWER + 7)).endswith("… 7 more characters")
    assert clipped("x" * LONGEST_ANSWER) == "x" * LONGEST_ANSWER


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page was NOT rendered")
@pytest.mark.parametrize("width", [1300, 500])
def test_browser_renders_it_without_errors_or_overflow(page: str, tmp_path: Path, width: int) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("<details>", "<details open>").replace("</body>", PROBE + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom"]
    command = [
        str(CHROMIUM),
        *options,
        f"--window-size={width},2000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*command, probed.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in done.stderr
    found = re.search(r'data-probe="([^"]+)"', done.stdout)
    assert found
    probe = found.group(1).replace("&quot;", '"')
    assert '"overflow":0' in probe, probe
    assert '"untitled":0' in probe
    assert re.search(r'"buttons":[1-9]', probe), "the script did not run"


def test_the_page_says_who_thinks_as_asked(tmp_path: Path) -> None:
    """One row per checkpoint of a benchmark that asks. Where nothing is asked, only whether it thinks."""
    made = short_run(tmp_path)
    assert "Thinking switch" not in write_report(made.root).read_text(encoding="utf-8")
    digest = CheckpointRef.parse(made.parent).digest
    for name, obeyed in (("preference", 0.625), ("ifeval", None)):
        score = read_score(made.layout, digest, name, "screen")
        assert score is not None
        write_score(made.layout, score.model_copy(update={"switch_obeyed": obeyed, "thought": 0.375}))
    page = write_report(made.root).read_text(encoding="utf-8")
    table = page.partition("Thinking switch")[2].partition("</details>")[0]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    asked, free = ([row for row in cells if row[0] == name] for name in ("preference", "ifeval"))
    assert [row[2:4] for row in asked] == [["0.625", "0.375"]], cells
    assert len(free) == 1 and free[0][2] != free[0][3] == "0.375"
    assert "thinks as asked 0.625" in explain(made.root, "preference")
