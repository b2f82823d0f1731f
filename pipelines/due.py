"""Whether a schedule's time has come: `python -m pipelines.due 'CRON' ZONE` exits with 0 if so, else with 1.

Some cron daemons (Debian's) know the machine's time zone only. So lines for a machine's cron start this often
enough for every zone, and it looks at the zone's own clock. A time that is skipped when clocks go forward
comes in the minute after; one that is repeated when they go back comes once.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.cron import Cron, values_of

HOUR = 60
QUARTERS = (
    0,
    15,
    30,
    45,
)  # minutes by which time zones differ: all in use today are whole quarters of an hour
MINUTE = timedelta(minutes=1)


def asked_at(cron: Cron) -> list[int]:
    """The minutes of every hour at which this has to be asked, whatever the machine's zone is."""
    own = values_of(cron.expression.split()[0], 0, HOUR - 1)
    return sorted({(minute + quarter) % HOUR for minute in own for quarter in QUARTERS})


def is_due(cron: Cron, now: datetime) -> bool:
    """Whether a moment of the schedule came since it was last asked: a busy machine asks late."""
    minutes = asked_at(cron)
    following = [*minutes[1:], minutes[0] + HOUR]
    patience = min(after - before for before, after in zip(minutes, following, strict=True))
    asked = now.astimezone(UTC).replace(second=0, microsecond=0)
    return any(_comes(cron, asked - late * MINUTE) for late in range(patience))


def _comes(cron: Cron, moment: datetime) -> bool:
    zone, hours = ZoneInfo(cron.zone), values_of(cron.expression.split()[1], 0, 23)
    here, before = moment.astimezone(zone), (moment - MINUTE).astimezone(zone)
    if here.fold and len(hours) < 24:
        return False
    wall, last = here.replace(tzinfo=None), before.replace(tzinfo=None)
    skipped = max(0, (wall - last) // MINUTE - 1)
    return any(cron.matches(wall - late * MINUTE) for late in range(skipped + 1))


if __name__ == "__main__":
    sys.exit(0 if is_due(Cron(*sys.argv[1:3]), datetime.now(UTC)) else 1)
