"""What people of the generated office wish for: in words, and as the calls that fulfil it."""

from __future__ import annotations

import random
from collections.abc import Callable

from kascade.environments.rows.tool_calls import ToolCall
from kascade.environments.workplace.tables import BOARDS, LISTS, PRODUCTS, STATUSES, SUBJECTS, Tables

Wish = tuple[str, list[ToolCall]]


def _person(address: str) -> str:
    return address.partition(".")[0].capitalize()


def _reply(rng: random.Random, tables: Tables) -> Wish | None:
    email = rng.choice(list(tables.emails.values()))
    same = [e for e in tables.emails.values() if e["sender/recipient"] == email["sender/recipient"]]
    last = max(same, key=lambda e: e["sent_datetime"])
    body = rng.choice(("Thanks, I will look into it.", "Done.", "Let us talk tomorrow."))
    text = f"Answer {_person(last['sender/recipient'])}'s latest email with '{body}'"
    return text, [ToolCall("email_reply_email", {"email_id": last["email_id"], "body": body})]


def _rename(rng: random.Random, tables: Tables) -> Wish | None:
    event = rng.choice(list(tables.events.values()))
    day = event["event_start"][:10]
    same_day = [e for e in tables.events.values() if e["event_start"].startswith(day)]
    last = max(same_day, key=lambda e: e["event_start"])
    ties = [e for e in tables.events.values() if e["event_start"] == last["event_start"]]
    name = rng.choice([subject for subject in SUBJECTS if subject != last["event_name"]])
    if len(ties) > 1:
        return None
    arguments = {"event_id": last["event_id"], "field": "event_name", "new_value": name}
    return f"Rename the last event on {day} to {name}.", [ToolCall("calendar_update_event", arguments)]


def _meet(rng: random.Random, tables: Tables) -> Wish | None:
    who, name, hour = rng.choice(tables.addresses), rng.choice(SUBJECTS), rng.randint(9, 16)
    arguments = {
        "event_name": name,
        "participant_email": who,
        "event_start": f"2023-12-{rng.randint(1, 28):02d} {hour:02d}:00:00",
        "duration": "30",
    }
    when = f"{arguments['event_start'][:10]} at {hour}:00"
    text = f"Set up a 30-minute event '{name}' with {_person(who)} on {when}."
    return text, [ToolCall("calendar_create_event", arguments)]


def _move_task(rng: random.Random, tables: Tables) -> Wish | None:
    task = rng.choice(list(tables.tasks.values()))
    same = [t for t in tables.tasks.values() if t["task_name"] == task["task_name"]]
    if len(same) > 1:
        return None
    to = rng.choice([name for name in LISTS if name != task["list_name"]])
    arguments = {"task_id": task["task_id"], "field": "list_name", "new_value": to}
    text = f"Move the task '{task['task_name']}' to the list {to}."
    return text, [ToolCall("project_management_update_task", arguments)]


def _plot(rng: random.Random, tables: Tables) -> Wish | None:
    kind, first = rng.choice(("bar", "line")), rng.randint(1, 14)
    arguments = {
        "time_min": f"2023-11-{first:02d}",
        "time_max": f"2023-11-{first + 14:02d}",
        "value_to_plot": "total_visits",
        "plot_type": kind,
    }
    text = f"Make a {kind} plot of total visits from {arguments['time_min']} to {arguments['time_max']}."
    return text, [ToolCall("analytics_create_plot", arguments)]


def _reassign(rng: random.Random, tables: Tables) -> Wish | None:
    old, new = rng.sample(tables.addresses, 2)
    status = rng.choice(STATUSES)
    rows = [c for c in tables.customers.values() if c["assigned_to_email"] == old and c["status"] == status]
    text = f"{_person(new)} takes over all of {_person(old)}'s customers with the status {status}."
    calls = [
        ToolCall(
            "customer_relationship_manager_update_customer",
            {"customer_id": row["customer_id"], "field": "assigned_to_email", "new_value": new},
        )
        for row in rows
    ]
    return (text, calls) if calls else None


def _drop(rng: random.Random, tables: Tables) -> Wish | None:
    product = rng.choice(PRODUCTS)
    rows = [c for c in tables.customers.values() if (c["status"], c["product_interest"]) == ("Lost", product)]
    name = "customer_relationship_manager_delete_customer"
    text = f"Delete all lost customers who were interested in {product}."
    return (text, [ToolCall(name, {"customer_id": row["customer_id"]}) for row in rows]) if rows else None


def _finish(rng: random.Random, tables: Tables) -> Wish | None:
    board = rng.choice(BOARDS)
    rows = [t for t in tables.tasks.values() if (t["board"], t["list_name"]) == (board, "In Review")]
    calls = [
        ToolCall(
            "project_management_update_task",
            {"task_id": row["task_id"], "field": "list_name", "new_value": "Completed"},
        )
        for row in rows
    ]
    return (f"Everything in review on the {board} board is completed.", calls) if calls else None


WISHES: tuple[Callable[[random.Random, Tables], Wish | None], ...] = (
    _reply,
    _rename,
    _meet,
    _move_task,
    _plot,
    _reassign,
    _drop,
    _finish,
)
