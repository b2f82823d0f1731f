"""The office's tools that look at visits of its web site."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from kascade.environments.workplace.rows import need, one_of
from kascade.environments.workplace.tables import Row

PLOT_VALUES = (
    "total_visits",
    "session_duration_seconds",
    "user_engaged",
    "visits_direct",
    "visits_referral",
    "visits_search_engine",
    "visits_social_media",
)
PLOT_TYPES = ("bar", "line", "scatter", "histogram")


class Analytics:
    """The visits, which no tool changes, and the plots that were made of them."""

    def __init__(self, visits: Sequence[Row]) -> None:
        self._visits = visits
        self._plots: list[str] = []

    def _analytics_get_visitor_information_by_id(self, visitor_id: str = "") -> Any:
        need(visitor_id, "Visitor ID not provided.")
        found = [row for row in self._visits if row["visitor_id"] == visitor_id]
        need(found, "Visitor not found.")
        return found

    def _analytics_create_plot(
        self, time_min: str = "", time_max: str = "", value_to_plot: str = "", plot_type: str = ""
    ) -> Any:
        need(time_min, "Start date not provided.")
        need(time_max, "End date not provided.")
        one_of(value_to_plot, PLOT_VALUES, "Value to plot must be one of")
        one_of(plot_type, PLOT_TYPES, "Plot type must be one of")
        self._plots.append(f"plots/{time_min}_{time_max}_{value_to_plot}_{plot_type}.png")
        return self._plots[-1]

    def _analytics_total_visits_count(self, time_min: str = "", time_max: str = "") -> Any:
        return dict(Counter(row["date_of_visit"] for row in self._visited(time_min, time_max)))

    def _analytics_engaged_users_count(self, time_min: str = "", time_max: str = "") -> Any:
        return self._per_day(time_min, time_max, lambda row: row["user_engaged"] == "True")

    def _analytics_traffic_source_count(
        self, time_min: str = "", time_max: str = "", traffic_source: str = ""
    ) -> Any:
        return self._per_day(time_min, time_max, lambda row: traffic_source in ("", row["traffic_source"]))

    def _analytics_get_average_session_duration(self, time_min: str = "", time_max: str = "") -> Any:
        seconds: dict[str, list[float]] = defaultdict(list)
        for row in self._visited(time_min, time_max):
            seconds[row["date_of_visit"]].append(float(row["session_duration_seconds"]))
        return {day: sum(values) / len(values) for day, values in sorted(seconds.items())}

    def _visited(self, time_min: str, time_max: str) -> list[Row]:
        rows = sorted(self._visits, key=lambda row: row["date_of_visit"])
        return [
            row
            for row in rows
            if (not time_min or row["date_of_visit"] >= time_min)
            and (not time_max or row["date_of_visit"] <= time_max)
        ]

    def _per_day(self, time_min: str, time_max: str, counts: Callable[[Row], bool]) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self._visited(time_min, time_max):
            found[row["date_of_visit"]] = found.get(row["date_of_visit"], 0) + counts(row)
        return found
