"""The office's 27 tools and their parameters, named as in NeMo-Gym's `workplace_assistant`."""

from __future__ import annotations

from collections.abc import Mapping

EVENT_FIELDS = ("event_name", "participant_email", "event_start", "duration")
CUSTOMER_COLUMNS = (
    "customer_id",
    "customer_name",
    "assigned_to_email",
    "status",
    "customer_email",
    "customer_phone",
    "last_contact_date",
    "product_interest",
    "notes",
    "follow_up_by",
)
_DAYS = ("time_min", "time_max")
_PAGES = ("page", "page_size")
_TASK = ("task_name", "assigned_to_email", "list_name", "due_date", "board")
_MOST = ("customer_name", "customer_email", "product_interest", "status", "assigned_to_email")
_RANGES = ("last_contact_date_min", "last_contact_date_max", "follow_up_by_min", "follow_up_by_max")
TOOL_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "company_directory_find_email_address": ("name",),
    "email_get_email_information_by_id": ("email_id", "field"),
    "email_search_emails": ("query", "date_min", "date_max", *_PAGES),
    "email_send_email": ("recipient", "subject", "body"),
    "email_delete_email": ("email_id",),
    "email_forward_email": ("email_id", "recipient"),
    "email_reply_email": ("email_id", "body"),
    "calendar_get_event_information_by_id": ("event_id", "field"),
    "calendar_search_events": ("query", *_DAYS, *_PAGES),
    "calendar_create_event": EVENT_FIELDS,
    "calendar_delete_event": ("event_id",),
    "calendar_update_event": ("event_id", "field", "new_value"),
    "analytics_get_visitor_information_by_id": ("visitor_id",),
    "analytics_create_plot": (*_DAYS, "value_to_plot", "plot_type"),
    "analytics_total_visits_count": _DAYS,
    "analytics_engaged_users_count": _DAYS,
    "analytics_traffic_source_count": (*_DAYS, "traffic_source"),
    "analytics_get_average_session_duration": _DAYS,
    "project_management_get_task_information_by_id": ("task_id", "field"),
    "project_management_search_tasks": _TASK,
    "project_management_create_task": _TASK,
    "project_management_delete_task": ("task_id",),
    "project_management_update_task": ("task_id", "field", "new_value"),
    "customer_relationship_manager_search_customers": (*_MOST, *_RANGES, *_PAGES),
    "customer_relationship_manager_update_customer": ("customer_id", "field", "new_value"),
    "customer_relationship_manager_add_customer": CUSTOMER_COLUMNS[1:],
    "customer_relationship_manager_delete_customer": ("customer_id",),
}
