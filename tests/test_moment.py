"""Moments, as people and programs name them."""

import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.wire.moment import Moment

NOON_US = 1_795_780_800_000_000  # 2026-11-27T12:00:00Z


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", Moment(position=0)),
        ("007", Moment(position=7)),
        ("9" * 5_000, Moment(position=int("9" * 20))),
        ("2026-11-27T12:00:00Z", Moment(recorded_us=NOON_US)),
        ("2026-11-27t12:00:00z", Moment(recorded_us=NOON_US)),
        ("2026-11-27 12:00:00Z", Moment(recorded_us=NOON_US)),
        ("2026-11-27T14:00:00+02:00", Moment(recorded_us=NOON_US)),
        ("2026-11-27T14:00:00 02:00", Moment(recorded_us=NOON_US)),
        ("2026-11-27T12:00:00.25Z", Moment(recorded_us=NOON_US + 250_000)),
        ("2026-11-27T12:00:00.1234569Z", Moment(recorded_us=NOON_US + 123_456)),
        ("2026-11-27T11:59:60Z", Moment(recorded_us=NOON_US)),
        ("9999-12-31T23:59:59-23:59", Moment(recorded_us=253_402_387_139_000_000)),
    ],
)
def test_a_position_or_a_time_is_a_moment(text: str, moment: Moment) -> None:
    assert Moment.parse(text) == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a position nor a time"),
        ("-1", "neither a position nor a time"),
        ("1.5", "neither a position nor a time"),
        ("٣", "neither a position nor a time"),
        ("²", "neither a position nor a time"),
        ("yesterday", "neither a position nor a time"),
        ("2026-11-27", "neither a position nor a time"),
        ("2026-11-27T12:00Z", "neither a position nor a time"),
        ("2026-11-27T12:00:00", "lacks a time zone"),
        ("2026-02-30T12:00:00Z", "is no time that there is"),
        ("2026-11-27T25:00:00Z", "is no time that there is"),
        ("0000-01-01T00:00:00Z", "is no time that there is"),
        ("2026-11-27T12:00:00+99:00", "is no time that there is"),
        ("2026-11-27T12:00:00Z\n", "neither a position nor a time"),
        ("x" * 10_000, "x…' is neither a position nor a time"),
    ],
)
def test_what_is_none_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        Moment.parse(text)
    assert len(str(refused.value)) < 300


def test_an_event_belongs_to_a_moment_up_to_its_position_or_its_time() -> None:
    assert [Moment(position=5).is_after(p, 0) for p in (4, 5, 6)] == [False, False, True]
    assert [Moment(recorded_us=5).is_after(0, t) for t in (4, 5, 6)] == [False, False, True]


@given(st.datetimes(timezones=st.timezones()))
def test_every_time_is_understood_as_it_is_meant(moment: datetime.datetime) -> None:
    offset = moment.utcoffset() or datetime.timedelta()
    if not offset % datetime.timedelta(minutes=1):
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        assert Moment.parse(moment.isoformat()).recorded_us == (moment - epoch) // datetime.timedelta(microseconds=1)


@given(st.text())
def test_any_text_is_a_moment_or_is_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert Moment.parse(text) != Moment()
