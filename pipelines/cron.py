"""Times of a schedule: five cron fields in a time zone, and what Kubeflow, which counts in UTC, needs for it.

Kubeflow's scheduler (robfig/cron 1.2) takes six fields, the first for seconds, and knows no time zones. So a
schedule is moved by the zone's present distance from UTC; when the clocks change, it has to be applied again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kascade.errors import Fault, UserError

DAY_MINUTES = 24 * 60
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # of the months, in leap years
MOST_DIGITS = 4
RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}
# Names of a field's values, by its highest value.
NAMED = {7: {day: n for n, day in enumerate(DAYS)}, 12: {month: n for n, month in enumerate(MONTHS, 1)}}
MACHINES = frozenset({"localtime", "Factory"})  # zones that are another one on every machine


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields as written, and the time zone's name."""

    expression: str
    zone: str

    def __post_init__(self) -> None:
        faults = []
        fields = self.expression.split()
        if len(fields) != len(RANGES):
            what = f"{self.expression!r} has {len(fields)} fields"
            faults.append(Fault("--cron", what, "five: minute hour day month weekday ('0 2 * * 1')"))
        else:
            for (name, bounds), text in zip(RANGES.items(), fields, strict=True):
                try:
                    values_of(text, *bounds)
                except ValueError:
                    allowed = f"{bounds[0]} to {bounds[1]}, lists, ranges and steps, or *"
                    faults.append(Fault("--cron", f"{text!r} is not a {name}", allowed))
        try:
            if self.zone in MACHINES:
                raise ValueError
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            faults.append(Fault("--timezone", f"{self.zone!r} is unknown", "Europe/Berlin, UTC, ..."))
        faults += [] if faults else self._readers_faults()
        if faults:
            raise UserError(faults)

    def _readers_faults(self) -> list[Fault]:
        """What this expression says to no reader, or to each reader differently."""
        _, _, day, month, weekday = self.expression.split()
        days, months = values_of(day, 1, 31), values_of(month, 1, 12)
        if weekday == "*" and not any(days[0] <= LENGTHS[one - 1] for one in months):
            what = f"{self.expression!r} names a day that never comes"
            return [Fault("--cron", what, "a day that one of its months has", "name another day or month")]
        if "*" not in (day, weekday) and "*" in (day[:1], weekday[:1]):
            what = f"{self.expression!r} limits days of the month and of the week, one of them by a step"
            remedy = "schedulers read that differently: write the days as numbers"
            return [Fault("--cron", what, "*, or numbers, lists and ranges", remedy)]
        return []

    def in_utc(self, now: datetime) -> str:
        """Six fields in UTC that mean the same as long as the clocks do not change.

        Raises UserError where no one expression does (a day of the month that begins on the day before).
        """
        minutes, hours, day, month, weekday = self.expression.split()
        shift = _offset_minutes(self.zone, now)
        moments = [
            60 * hour + minute - shift
            for hour in values_of(hours, 0, 23)
            for minute in values_of(minutes, 0, 59)
        ]
        days = {moment // DAY_MINUTES for moment in moments}
        times = {divmod(moment % DAY_MINUTES, 60) for moment in moments}
        new_hours, new_minutes = {hour for hour, _ in times}, {minute for _, minute in times}
        dated = (day, month, weekday) != ("*", "*", "*")
        mixed = dated and (len(days) > 1 or (days != {0} and (day, month) != ("*", "*")))
        if mixed or len(times) != len(new_hours) * len(new_minutes):
            what = f"{self.expression!r} in {self.zone} is not one expression in UTC"
            remedy = f"choose hours that are the same day in UTC ({self.zone} is {shift / 60:+g} h), or UTC"
            raise UserError(Fault("--cron", what, remedy=remedy))
        moved = min(days) if weekday != "*" else 0
        # Written out, since readers give `*` beside another limited field a meaning of its own.
        if weekday != "*":
            weekday = joined({(one + moved) % 7 for one in values_of(weekday, 0, 7)}, range(0))
        if day != "*":
            day = joined(set(values_of(day, 1, 31)), range(0))
        month = joined(set(values_of(month, 1, 12)), range(1, 13))
        hour_text = joined(new_hours, range(24))
        return f"0 {joined(new_minutes, range(60))} {hour_text} {day} {month} {weekday}"

    def matches(self, wall: datetime) -> bool:
        """Whether the fields name this minute of the zone's own clock."""
        minute, hour, day, month, weekday = self.expression.split()
        if (
            wall.minute not in values_of(minute, 0, 59)
            or wall.hour not in values_of(hour, 0, 23)
            or wall.month not in values_of(month, 1, 12)
        ):
            return False
        on_day = wall.day in values_of(day, 1, 31)
        on_weekday = wall.isoweekday() % 7 in {one % 7 for one in values_of(weekday, 0, 7)}
        return on_day and on_weekday if "*" in (day, weekday) else on_day or on_weekday

    def next_change(self, today: date) -> date | None:
        """The first day within a year on which the zone's distance from UTC is another; None: none."""
        offsets = [
            (day, _offset_minutes(self.zone, datetime(day.year, day.month, day.day, 12, tzinfo=UTC)))
            for day in (today + timedelta(days=n) for n in range(366))
        ]
        return next((day for day, offset in offsets if offset != offsets[0][1]), None)


def _offset_minutes(zone: str, now: datetime) -> int:
    offset = now.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) // 60


def values_of(text: str, low: int, high: int) -> list[int]:
    """The numbers that a field names. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, high)
            last = _number(end, high) if dash else (high if slash else first)
            if dash and end.lower() == DAYS[0] and first > last:  # from friday to sunday
                last = high
        stride = _digits(step) if slash else 1
        if not (low <= first <= last <= high) or stride < 1:
            raise ValueError(part)
        found |= set(range(first, last + 1, stride))
    return sorted(found)


def _number(text: str, high: int) -> int:
    """A number, or the name of a weekday or a month in its own field. Raises ValueError."""
    named = NAMED.get(high, {}).get(text.lower())
    return _digits(text) if named is None else named


def _digits(text: str) -> int:
    """Digits 0 to 9 and nothing else: Python reads more as a number than schedulers do. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ValueError(text)
    return int(text)


def joined(values: set[int], whole: range) -> str:
    """A field that names these values."""
    return "*" if values == set(whole) else ",".join(map(str, sorted(values)))
