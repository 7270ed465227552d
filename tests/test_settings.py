"""The settings of the source: a wrong one is named, with the values that are allowed."""

from datetime import date, datetime, timezone
from typing import Any

import pytest

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY
from convertly_source.errors import SettingsError
from convertly_source.settings import connect, parse_timestamp, parse_window

UTC = timezone.utc
MAY = datetime(2026, 5, 1, tzinfo=UTC)
STATUSES = "pending, processing, completed, failed"


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("status", "done", STATUSES),
        ("page_size", 0, "1 to 100"),
        ("page_size", 101, "1 to 100"),
        ("max_connections", 0, "1 or more"),
        ("requests_per_minute", -1, "0 or more"),
        ("table_format", "parquet", "delta, iceberg"),
        ("auth_method", "basic", "bearer"),
        ("start_date", "soon", "2026-05-01"),
        ("end_date", "2026-13-01", "2026-05-01"),
        ("start_date", "2026", "2026-05-01"),
        ("end_date", " 1777600000.5", "2026-05-01"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: Any, remedy: str) -> None:
    """A wrong setting is named, with its value and those that are allowed."""
    with pytest.raises(SettingsError, match=f"{name} .*{value}") as refused:
        convertly_source(DEMO_KEY, **{name: value})
    assert remedy in refused.value.remedy
    assert refused.value.setting == name


def test_an_empty_window_is_refused() -> None:
    """A window must end after it starts."""
    with pytest.raises(SettingsError, match="end_date") as refused:
        convertly_source(DEMO_KEY, start_date=date(2026, 5, 2), end_date=date(2026, 5, 2))
    assert "after 2026-05-02 00:00:00 UTC" in refused.value.remedy


def test_without_a_key_there_is_a_way_out() -> None:
    """Without a key the error names the variable that is missing."""
    with pytest.raises(SettingsError, match="no API key") as refused:
        convertly_source()
    assert "CONVERTLY_API_KEY" in refused.value.remedy
    assert refused.value.setting == "api_key"


@pytest.mark.parametrize(
    "value", ["2026-05-01", "2026-05-01T02:00:00+02:00", MAY, MAY.replace(tzinfo=None), MAY.date()]
)
def test_a_timestamp_is_read_as_utc(value: Any) -> None:
    """A text, a date or a datetime is a timestamp; without a time zone it is UTC."""
    found = parse_timestamp("start_date", value)
    assert (found, found and found.tzinfo) == (MAY, UTC)


def test_a_window_with_an_end_has_a_start() -> None:
    """With an end alone a window starts before the first job; without one it has no bounds."""
    start, end = parse_window(None, MAY)
    assert end == MAY
    assert start is not None
    assert start <= datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_window(None, None) == (None, None)
    assert parse_window(MAY, None) == (MAY, None)


def test_the_vendors_address_is_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONVERTLY_BASE_URL replaces the default address, not one that is given."""
    assert connect(DEMO_KEY).host == "convertly.sh"
    monkeypatch.setenv("CONVERTLY_BASE_URL", "https://convertly.example")
    assert connect(DEMO_KEY).host == "convertly.example"
    assert connect(DEMO_KEY, "https://other.example").host == "other.example"
