"""Cron in a time zone, moved to UTC: it fires at the same moments, or is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.errors import UserError
from pipelines.cron import Cron, values_of
from pipelines.due import asked_at, is_due

WINTER = datetime(2026, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "utc"),
    [
        ("0 2 * * 1", "UTC", "0 0 2 * * 1"),
        ("0 2 * * 1", "Europe/Berlin", "0 0 1 * * 1"),
        ("0 2 * * 7", "UTC", "0 0 2 * * 0"),
        ("0 2 * * 5-7", "UTC", "0 0 2 * * 0,5,6"),
        ("0 2 * * 1,7", "UTC", "0 0 2 * * 0,1"),
        ("0 2 * * sun", "UTC", "0 0 2 * * 0"),
        ("0 2 * * fri-sun", "UTC", "0 0 2 * * 0,5,6"),
        ("0 2 * * 0-7", "UTC", "0 0 2 * * 0,1,2,3,4,5,6"),
        ("0 2 01 1-2 *", "UTC", "0 0 2 1 1,2 *"),
        ("0 2 29 2 *", "UTC", "0 0 2 29 2 *"),
        ("0 2 1 jan,Jul-SEP *", "UTC", "0 0 2 1 1,7,8,9 *"),
        ("30 0 * * mon-fri", "Europe/Berlin", "0 30 23 * * 0,1,2,3,4"),
        ("0 */6 * * *", "Asia/Tokyo", "0 0 3,9,15,21 * * *"),
        ("15 9 1 * *", "Asia/Kolkata", "0 45 3 1 * *"),
        ("0 0 * * *", "America/New_York", "0 0 5 * * *"),
    ],
)
def test_moved_to_utc(expression: str, zone: str, utc: str) -> None:
    assert Cron(expression, zone).in_utc(WINTER) == utc


@pytest.mark.parametrize(
    ("expression", "zone"),
    [("0 0 1 * *", "Europe/Berlin"), ("0 0,12 * * 1", "Asia/Tokyo"), ("0,30 5 1 * *", "Asia/Kolkata")],
)
def test_what_is_no_single_expression_is_refused(expression: str, zone: str) -> None:
    with pytest.raises(UserError, match="not one expression"):
        Cron(expression, zone).in_utc(WINTER)


@pytest.mark.parametrize(
    "expression",
    [
        *("", "* * * *", "61 * * * *", "a b c d e", "5-1 * * * *", "*/0 * * * *", "0 0 * * 8"),
        *("+1 * * * *", "0_0 * * * *", "\u0661 * * * *", "-1 * * * *", "1e1 * * * *", "* * sun * *"),
        *("* * * mon *", "* * * * jan", "jan * * * *", "0 0 31 feb *"),
        *("0 2 30 2 *", "0 2 31 4,6,9,11 *", "0 2 */2 * 1", "0 2 1 * */2", f"0 {'1' * 5000} * * *"),
    ],
)
def test_faulty_expressions_are_told(expression: str) -> None:
    with pytest.raises(UserError, match="--cron"):
        Cron(expression, "UTC")
    with pytest.raises(UserError, match="--timezone"):
        Cron("0 0 * * *", "Mars/Olympus")
    with pytest.raises(UserError, match="--timezone"):  # another one on every machine
        Cron("0 0 * * *", "localtime")


def test_when_the_clocks_change() -> None:
    assert Cron("0 2 * * *", "Europe/Berlin").next_change(date(2026, 1, 14)) == date(2026, 3, 29)
    assert Cron("0 2 * * *", "Asia/Tokyo").next_change(date(2026, 1, 14)) is None


def fires(fields: list[str], moment: datetime) -> bool:
    minute, hour, _, _, weekday = fields
    return (
        moment.minute in values_of(minute, 0, 59)
        and moment.hour in values_of(hour, 0, 23)
        and moment.isoweekday() % 7 in {day % 7 for day in values_of(weekday, 0, 7)}
    )


@given(
    st.integers(0, 59),
    st.lists(st.integers(0, 23), min_size=1, max_size=3),
    st.sampled_from(["*", "0", "7", "1-5", "mon,thu"]),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Auckland"]),
)
def test_the_same_moments_in_a_week(minute: int, hours: list[int], weekday: str, zone: str) -> None:
    cron = Cron(f"{minute} {','.join(map(str, hours))} * * {weekday}", zone)
    try:
        moved = cron.in_utc(WINTER).split()[1:]
    except UserError:
        return
    minutes = {minute, *values_of(moved[0], 0, 59)}
    for hour in range(7 * 24):
        for moment in (WINTER + timedelta(hours=hour, minutes=one) for one in minutes):
            local = moment.astimezone(ZoneInfo(zone))
            assert fires(cron.expression.split(), local) == fires(moved, moment)


def asked_by_cron(cron: Cron, machine: str, days: list[date]) -> list[datetime]:
    """When the line for a machine's cron found its time come, the machine's own zone being another."""
    minutes = asked_at(cron)
    start = datetime(days[0].year, days[0].month, days[0].day, tzinfo=ZoneInfo(machine)).astimezone(UTC)
    moments = (start + timedelta(minutes=one) for one in range(len(days) * 24 * 60))
    return [
        one for one in moments if one.astimezone(ZoneInfo(machine)).minute in minutes and is_due(cron, one)
    ]


@pytest.mark.parametrize("machine", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin"])
@pytest.mark.parametrize(
    ("expression", "day", "local"),
    [
        ("0 2 * * *", date(2026, 1, 14), ["02:00"]),
        ("7,50 2 * jan wed", date(2026, 1, 14), ["02:07", "02:50"]),
        ("0 2 * * thu", date(2026, 1, 14), []),
        ("0 2 1 * wed", date(2026, 1, 14), ["02:00"]),  # on the first, or on wednesdays
        ("30 2 * * *", date(2026, 3, 29), ["03:00"]),  # it is skipped: clocks go forward at two
        ("30 2 * * *", date(2026, 10, 25), ["02:30"]),  # it is repeated: clocks go back at three
    ],
)
def test_a_machine_in_any_zone_asks_in_time_and_once(
    machine: str, expression: str, day: date, local: list[str]
) -> None:
    cron, zone = Cron(expression, "Europe/Berlin"), ZoneInfo("Europe/Berlin")
    days = [day + timedelta(days=one) for one in (-1, 0, 1)]
    found = [one.astimezone(zone) for one in asked_by_cron(cron, machine, days)]
    quarter = timedelta(minutes=15)  # that lie between machines' zones
    on_day = [one for one in found if one.date() == day]
    assert len(on_day) == len(local)
    for one, wanted in zip(on_day, local, strict=True):
        hour, after = map(int, wanted.split(":"))
        exact = datetime(day.year, day.month, day.day, hour, after, tzinfo=zone)
        assert timedelta(0) <= one.astimezone(UTC) - exact.astimezone(UTC) < quarter


def test_a_busy_machine_that_asks_late_is_in_time() -> None:
    cron = Cron("0 2 * * 1", "Europe/Berlin")
    monday = datetime(2026, 1, 12, 1, 0, tzinfo=UTC)
    assert [is_due(cron, monday + timedelta(minutes=late)) for late in (-1, 0, 3, 14, 15)] == [
        *(False, True, True, True, False)
    ]
    often = Cron("*/5 * * * *", "UTC")
    assert all(is_due(often, monday + timedelta(minutes=five)) for five in range(0, 60, 5))
