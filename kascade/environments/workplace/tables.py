"""The five tables of the Workplace Assistant and its address list: from a folder, or made by us.

Columns and file names are those of NeMo-Gym's `workplace_assistant` (WorkBench, arXiv 2405.00823). Every
value is text, as in the files.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from kascade.errors import Fault, UserError

Row = dict[str, str]
Table = dict[str, Row]  # by id, in order
NOW = datetime(2023, 11, 30, 23, 59)  # the day on which all of the tables' tasks play

FILES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "emails": (
        "emails.csv",
        ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body"),
    ),
    "events": (
        "calendar_events.csv",
        ("event_id", "event_name", "participant_email", "event_start", "duration"),
    ),
    "tasks": (
        "project_tasks.csv",
        ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board"),
    ),
    "customers": (
        "customer_relationship_manager_data.csv",
        (
            "customer_id",
            "assigned_to_email",
            "customer_name",
            "customer_email",
            "customer_phone",
            "last_contact_date",
            "product_interest",
            "status",
            "follow_up_by",
            "notes",
        ),
    ),
}
VISITS = (
    "analytics_data.csv",
    (
        "date_of_visit",
        "visitor_id",
        "page_views",
        "session_duration_seconds",
        "traffic_source",
        "user_engaged",
    ),
)
ADDRESSES = "email_addresses.csv"

PEOPLE = (
    "ana.costa", "ben.okafor", "chloe.martin", "dai.nguyen", "elif.demir", "farid.haddad", "greta.lund",
    "hugo.silva", "iris.novak", "jonas.weber", "kira.sato", "liam.murphy",
)  # fmt: skip
COMPANY = "harbor.com"
SUBJECTS = (
    "Budget review", "Office move", "Security training", "Release plan", "Customer feedback", "Travel policy",
    "Hiring update", "Server migration", "Design draft", "Quarterly numbers",
)  # fmt: skip
LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
STATUSES = ("Qualified", "Won", "Lost", "Lead", "Proposal")
PRODUCTS = ("Software", "Hardware", "Services", "Consulting", "Training")
SOURCES = ("direct", "referral", "search engine", "social media")
VERBS = ("Fix", "Write", "Review", "Test", "Update")
THINGS = ("login page", "search index", "payment form", "user guide", "backup job", "mobile menu")
FIRST = ("Avery", "Blake", "Casey", "Devon", "Emery", "Finley", "Jordan", "Morgan", "Parker", "Riley")
LAST = ("Adams", "Brooks", "Carter", "Diaz", "Evans", "Foster", "Gray", "Hayes")


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows by id of each table, the visits, and the addresses. Shared: copy a table before changing it."""

    emails: Table
    events: Table
    tasks: Table
    customers: Table
    visits: tuple[Row, ...]
    addresses: tuple[str, ...]


def read_tables(folder: str) -> Tables:
    """The tables of a folder. Raises UserError with every file or column that is missing."""
    paths = [Path(folder) / name for name in (ADDRESSES, VISITS[0], *(file for file, _ in FILES.values()))]
    if missing := [path.name for path in paths if not path.is_file()]:
        remedy = "name the folder that holds the CSV files of the Workplace Assistant (option `databases`)"
        raise UserError([Fault(f"{folder}/{name}", "is not there", remedy=remedy) for name in missing])
    return _read(folder, tuple(path.stat().st_mtime_ns for path in paths))


@lru_cache(maxsize=8)
def _read(folder: str, _modified: tuple[int, ...]) -> Tables:
    tables = {
        name: {row[columns[0]]: row for row in _rows(Path(folder) / file, columns)}
        for name, (file, columns) in FILES.items()
    }
    visits = tuple(_rows(Path(folder) / VISITS[0], VISITS[1]))
    addresses = (Path(folder) / ADDRESSES).read_text(encoding="utf-8").split()
    return Tables(**tables, visits=visits, addresses=tuple(addresses))


def _rows(path: Path, columns: tuple[str, ...]) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(Fault(str(path), f"lacks the columns {', '.join(missing)}", ", ".join(columns)))
        return [{column: row[column] or "" for column in columns} for row in reader]


@lru_cache(maxsize=64)
def make_tables(seed: int) -> Tables:
    """Tables of our own, the same for the same seed: an office of twelve people."""
    rng = random.Random(f"workplace/{seed}")
    addresses = tuple(f"{person}@{COMPANY}" for person in PEOPLE)
    return Tables(
        _by_id([_email(rng, addresses) for _ in range(60)], "email_id", "sent_datetime"),
        _by_id([_event(rng, addresses) for _ in range(40)], "event_id", "event_start"),
        _by_id([_task(rng, addresses) for _ in range(40)], "task_id", "due_date"),
        _by_id([_customer(rng, addresses) for _ in range(40)], "customer_id", "follow_up_by"),
        tuple(sorted((_visit(rng) for _ in range(200)), key=lambda row: row["date_of_visit"])),
        addresses,
    )


def _by_id(rows: list[Row], key: str, order: str) -> Table:
    """Rows in the order of one column, numbered from 1 with 8 digits."""
    rows = sorted(rows, key=lambda row: row[order])
    return {f"{number:08d}": {key: f"{number:08d}", **row} for number, row in enumerate(rows, start=1)}


def _day(rng: random.Random, first: int, last: int) -> datetime:
    """A day between `first` and `last` days from now, at midnight."""
    return datetime(NOW.year, NOW.month, NOW.day) + timedelta(days=rng.randint(first, last))


def _email(rng: random.Random, addresses: tuple[str, ...]) -> Row:
    who, subject = rng.choice(addresses), rng.choice(SUBJECTS)
    sent = _day(rng, -60, -1) + timedelta(seconds=rng.randint(8 * 3600, 18 * 3600))
    return {
        "inbox/outbox": rng.choice(("inbox", "inbox", "outbox")),
        "sender/recipient": who,
        "subject": subject,
        "sent_datetime": str(sent),
        "body": f"About the {subject.lower()}: please have a look by {_day(rng, 1, 9):%A}.",
    }


def _event(rng: random.Random, addresses: tuple[str, ...]) -> Row:
    start = _day(rng, -20, 20) + timedelta(minutes=30 * rng.randint(18, 34))
    return {
        "event_name": rng.choice(SUBJECTS),
        "participant_email": rng.choice(addresses),
        "event_start": str(start),
        "duration": rng.choice(("30", "60", "90")),
    }


def _task(rng: random.Random, addresses: tuple[str, ...]) -> Row:
    return {
        "task_name": f"{rng.choice(VERBS)} {rng.choice(THINGS)}",
        "assigned_to_email": rng.choice(addresses),
        "list_name": rng.choice(LISTS),
        "due_date": f"{_day(rng, -10, 30):%Y-%m-%d}",
        "board": rng.choice(BOARDS),
    }


def _customer(rng: random.Random, addresses: tuple[str, ...]) -> Row:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    return {
        "assigned_to_email": rng.choice(addresses),
        "customer_name": f"{first} {last}",
        "customer_email": f"{first}.{last}@example.com".lower(),
        "customer_phone": f"{rng.randint(200, 999)}-555-{rng.randint(1000, 9999)}",
        "last_contact_date": str(_day(rng, -60, -1)),
        "product_interest": rng.choice(PRODUCTS),
        "status": rng.choice(STATUSES),
        "follow_up_by": str(_day(rng, 1, 30)),
        "notes": "",
    }


def _visit(rng: random.Random) -> Row:
    return {
        "date_of_visit": f"{_day(rng, -60, 0):%Y-%m-%d}",
        "visitor_id": f"{rng.randint(1, 9999):04d}",
        "page_views": str(rng.randint(1, 12)),
        "session_duration_seconds": str(rng.randint(1, 60)),
        "traffic_source": rng.choice(SOURCES),
        "user_engaged": rng.choice(("True", "False")),
    }
