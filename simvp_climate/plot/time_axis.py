"""Times of any calendar on an axis of days."""

import numpy as np
from matplotlib.axis import Axis
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

from simvp_climate.plot import selection


def days_since_1970(times: np.ndarray) -> np.ndarray:
    """Return times as days since 1970; ValueError if they do not increase."""
    if times.dtype.kind == "M":
        days = date2num(times)
    else:
        import cftime

        days = np.asarray(cftime.date2num(times, "days since 1970-01-01", times[0].calendar), dtype=float)
    if (wrong := np.flatnonzero(np.diff(days) <= 0)).size:
        earlier, later = (selection.date_text(time, "%Y-%m-%d %H:%M UTC") for time in times[wrong[0] : wrong[0] + 2])
        raise ValueError(f"times must increase, but {later} follows {earlier}. Sort them and drop duplicates.")
    return days


def label_times(axis: Axis, times: np.ndarray, days: np.ndarray, most: int) -> None:
    """Label an axis of days at up to about `most` times, without the year where dates tell enough."""
    if times.dtype.kind == "M":
        locator = AutoDateLocator(minticks=min(3, most), maxticks=max(most, 3))
        axis.set_major_locator(locator)
        # for ticks at years, months, days, hours, minutes, seconds; zero_formats at January, the first, midnight ...
        formats = ["%Y", "%b", "%b %d", "%b %d, %H h", "%H:%M", "%H:%M:%S"]
        options = dict(zero_formats=["", "%Y", "%b", "%b %d", "%H:%M", "%H:%M"], show_offset=False)
        axis.set_major_formatter(ConciseDateFormatter(locator, formats=formats, **options))
        return
    # matplotlib knows no other calendars
    format = "%Y-%m-%d" if len({time.hour for time in times}) == 1 else "%Y-%m-%d %H"
    if len({(time.day, time.hour) for time in times}) == 1 and len(times) > 1:
        format = "%Y-%m"
    ticks = np.arange(len(times))[:: -(-len(times) // max(most - 1, 2))]
    axis.set_ticks(days[ticks], [time.strftime(format) for time in times[ticks]])
