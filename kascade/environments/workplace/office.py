"""The Workplace Assistant's office: five tables and the 27 tools that read and change them.

What each tool does and answers follows NeMo-Gym's `workplace_assistant`; searches take their words literally.
A tool that refuses says so in words and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kascade.environments.workplace.analytics import Analytics
from kascade.environments.workplace.parameters import CUSTOMER_COLUMNS, EVENT_FIELDS, TOOL_PARAMETERS
from kascade.environments.workplace.rows import (
    ToolRefusal,
    add_row,
    as_text,
    check_event,
    compared,
    containing,
    delete_row,
    field_of,
    find_row,
    need,
    one_of,
    page_of,
    parse_time,
    update_row,
)
from kascade.environments.workplace.tables import BOARDS, LISTS, NOW, PRODUCTS, STATUSES, Row, Tables

ADDRESS = re.compile(r"[\w.%+-]+@[\w.-]+\.[a-zA-Z]{2,}")
EVENT_ID = re.compile(r"\d{8}")


class Office(Analytics):
    """The tables, as changed so far by the calls of one conversation."""

    def __init__(self, tables: Tables) -> None:
        self._emails, self._events = dict(tables.emails), dict(tables.events)
        self._tasks, self._customers = dict(tables.tasks), dict(tables.customers)
        self._addresses = tables.addresses
        super().__init__(tables.visits)
        self._tools: Mapping[str, Callable[..., Any]] = {
            name: getattr(self, f"_{name}") for name in TOOL_PARAMETERS
        }

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the tool answers (JSON); errors are answers, too. Never raises."""
        if name not in self._tools:
            return f"Error executing tool '{name}': there is no such tool"
        given = {key: value for key, value in arguments.items() if value is not None}
        if unknown := [key for key in given if key not in TOOL_PARAMETERS[name]]:
            return f"Error executing tool '{name}': unknown arguments {', '.join(unknown)}"
        try:
            return self._tools[name](**{key: as_text(key, value) for key, value in given.items()})
        except ToolRefusal as refusal:
            return str(refusal)
        except ValueError as error:
            return f"Error executing tool '{name}': {error}"

    def state(self) -> tuple[Any, ...]:
        """What a comparison sees: all that tools can change, case aside but in `EXACT` columns."""
        tables = (self._emails, self._events, self._tasks, self._customers)
        rows = [[compared(row) for row in table.values()] for table in tables]
        return (*rows, [plot.lower() for plot in self._plots])

    # --- company directory and email ------------------------------------------------------------------

    def _company_directory_find_email_address(self, name: str = "") -> Any:
        need(name, "Name not provided.")
        return [address for address in self._addresses if name.lower() in address.lower()]

    def _email_get_email_information_by_id(self, email_id: str = "", field: str = "") -> Any:
        return field_of(self._emails, email_id, field, "Email")

    def _email_search_emails(
        self, query: str = "", date_min: str = "", date_max: str = "", page: int = 1, page_size: int = 5
    ) -> Any:
        words = query.lower().split()

        def matches(row: Row) -> bool:
            text = f"{row['subject']} {row['body']} {row['sender/recipient']}".lower()
            return all(word in text for word in words)

        found = [row for row in self._emails.values() if matches(row)]
        found.sort(key=lambda row: parse_time(row["sent_datetime"]), reverse=True)
        low, high = (parse_time(text).date() if text else None for text in (date_min, date_max))
        days = [(row, parse_time(row["sent_datetime"]).date()) for row in found]
        found = [r for r, day in days if (low is None or day >= low) and (high is None or day <= high)]
        return page_of(found, "emails", page, page_size)

    def _email_send_email(self, recipient: str = "", subject: str = "", body: str = "") -> Any:
        need(recipient and subject and body, "Recipient, subject, or body not provided.")
        self._send(recipient, subject, body)
        return "Email sent successfully."

    def _email_delete_email(self, email_id: str = "") -> Any:
        return delete_row(self._emails, email_id, "Email")

    def _email_forward_email(self, email_id: str = "", recipient: str = "") -> Any:
        need(email_id and recipient, "Email ID or recipient not provided.")
        email = find_row(self._emails, email_id, "Email")
        self._send(recipient, f"FW: {email['subject']}", email["body"])
        return "Email forwarded successfully."

    def _email_reply_email(self, email_id: str = "", body: str = "") -> Any:
        need(email_id and body, "Email ID or body not provided.")
        email = find_row(self._emails, email_id, "Email")
        self._send(email["sender/recipient"], f"RE: {email['subject']}", body)
        return "Email replied successfully."

    def _send(self, recipient: str, subject: str, body: str) -> None:
        need("@" in recipient and "." in recipient, "Invalid recipient email address.")
        number = str(int(max(self._emails, default="0")) + 1)  # without leading zeros, as the original
        self._emails[number] = {
            "email_id": number,
            "inbox/outbox": "outbox",
            "sender/recipient": recipient.lower(),
            "subject": subject,
            "sent_datetime": str(NOW),
            "body": body,
        }

    # --- calendar -------------------------------------------------------------------------------------

    def _calendar_get_event_information_by_id(self, event_id: str = "", field: str = "") -> Any:
        need(EVENT_ID.fullmatch(event_id), "Invalid event ID format. Expected 8-digit ID.")
        return field_of(self._events, event_id, field, "Event")

    def _calendar_search_events(
        self, query: str = "", time_min: str = "", time_max: str = "", page: int = 1, page_size: int = 5
    ) -> Any:
        low, high = (parse_time(text) if text else None for text in (time_min, time_max))
        found = []
        for row in self._events.values():
            start = parse_time(row["event_start"])
            if (low is None or start >= low) and (high is None or start <= high):
                found += [row] * (query.lower() in f"{row['event_name']}\n{row['participant_email']}".lower())
        found.sort(key=lambda row: parse_time(row["event_start"]), reverse=True)
        return page_of(found, "events", page, page_size)

    def _calendar_create_event(
        self, event_name: str = "", participant_email: str = "", event_start: str = "", duration: str = ""
    ) -> Any:
        need(event_name, "Event name not provided.")
        need(participant_email, "Participant email not provided.")
        need(event_start, "Event start not provided.")
        need(duration, "Event duration not provided.")
        check_event("event_start", event_start)
        check_event("duration", duration)
        values = (event_name, participant_email.lower(), event_start, duration)
        return add_row(self._events, "event_id", dict(zip(EVENT_FIELDS, values, strict=True)))

    def _calendar_delete_event(self, event_id: str = "") -> Any:
        need(event_id, "Event ID not provided.")
        need(EVENT_ID.fullmatch(event_id), "Invalid event ID format. Expected 8-digit ID.")
        return delete_row(self._events, event_id, "Event")

    def _calendar_update_event(self, event_id: str = "", field: str = "", new_value: str = "") -> Any:
        need(event_id and field and new_value, "Event ID, field, or new value not provided.")
        need(EVENT_ID.fullmatch(event_id), "Invalid event ID format. Expected 8-digit ID.")
        one_of(field, EVENT_FIELDS, "Invalid field. Available fields are")
        check_event(field, new_value)
        if field == "participant_email":
            new_value = new_value.lower()
        return update_row(self._events, event_id, field, new_value, "Event")

    # --- project management ---------------------------------------------------------------------------

    def _project_management_get_task_information_by_id(self, task_id: str = "", field: str = "") -> Any:
        return field_of(self._tasks, task_id, field, "Task")

    def _project_management_search_tasks(self, **wanted: str) -> Any:
        wanted = {column: text for column, text in wanted.items() if text}
        need(wanted, "No search parameters provided.")
        assignee = wanted.pop("assigned_to_email", "")
        need(not assignee or ADDRESS.fullmatch(assignee), "Invalid email format for assigned_to_email.")
        found = containing(self._tasks, wanted)
        return [row for row in found if not assignee or row["assigned_to_email"].lower() == assignee.lower()]

    def _project_management_create_task(self, **values: str) -> Any:
        columns = ("task_name", "assigned_to_email", "list_name", "due_date", "board")
        need(all(values.get(column) for column in columns), "Missing task details.")
        row = {column: values[column] for column in columns}
        row["assigned_to_email"] = row["assigned_to_email"].lower()
        for column in ("assigned_to_email", "list_name", "board"):
            self._check_task(column, row[column])
        return add_row(self._tasks, "task_id", row)

    def _project_management_delete_task(self, task_id: str = "") -> Any:
        return delete_row(self._tasks, task_id, "Task")

    def _project_management_update_task(self, task_id: str = "", field: str = "", new_value: str = "") -> Any:
        need(task_id and field and new_value, "Task ID, field, or new value not provided.")
        if field == "assigned_to_email":
            new_value = new_value.lower()
        self._check_task(field, new_value)
        return update_row(self._tasks, task_id, field, new_value, "Task")

    def _check_task(self, field: str, value: str) -> None:
        if field == "board":
            one_of(value, BOARDS, "Board not valid. Please choose from")
        elif field == "list_name":
            one_of(value, LISTS, "List not valid. Please choose from")
        elif field == "assigned_to_email":
            members = {row["assigned_to_email"].lower() for row in self._tasks.values()}
            what = "Assignee email not valid. Please choose from the list of team members."
            need(value in members, what)

    # --- customers ------------------------------------------------------------------------------------

    def _customer_relationship_manager_search_customers(
        self, page: int = 1, page_size: int = 5, **wanted: str
    ) -> Any:
        wanted = {name: text for name, text in wanted.items() if text}
        need(wanted, "No search parameters provided. Please provide at least one parameter.")
        ranges = {name: wanted.pop(name) for name in list(wanted) if name.endswith(("_min", "_max"))}
        found = containing(self._customers, wanted)
        for name, bound in ranges.items():
            column, _, side = name.rpartition("_")
            found = [
                row
                for row in found
                if row[column] and (row[column] >= bound if side == "min" else row[column] <= bound)
            ]
        return page_of(found, "customers", page, page_size)

    def _customer_relationship_manager_update_customer(
        self, customer_id: str = "", field: str = "", new_value: str = ""
    ) -> Any:
        need(customer_id and field and new_value, "Customer ID, field, or new value not provided.")
        if field == "status":
            one_of(new_value, STATUSES, "Status not valid. Please choose from")
        if field == "product_interest":
            one_of(new_value, PRODUCTS, "Product interest not valid. Please choose from")
        if field in ("customer_email", "assigned_to_email"):
            new_value = new_value.lower()
        return update_row(self._customers, customer_id, field, new_value, "Customer")

    def _customer_relationship_manager_add_customer(self, **values: str) -> Any:
        required = ("customer_name", "assigned_to_email", "status")
        what = f"Please provide all required fields: {', '.join(required)}."
        need(all(values.get(column) for column in required), what)
        columns = [name for name in CUSTOMER_COLUMNS if name != "customer_id"]
        row = {column: values.get(column, "") for column in columns}
        for column in ("assigned_to_email", "customer_email"):
            row[column] = row[column].lower()
        return add_row(self._customers, "customer_id", row)

    def _customer_relationship_manager_delete_customer(self, customer_id: str = "") -> Any:
        return delete_row(self._customers, customer_id, "Customer")
