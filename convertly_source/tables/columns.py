"""Which column the value of a key goes to, and how many columns a table may have."""

from collections.abc import Callable, Mapping

from dlt.common.data_types.typing import TDataType

EXTRA_FIELDS = "extra_fields"  # a JSON column for what has no column of its own
MAX_UNDOCUMENTED = 100  # columns per table, over all runs
MAX_KEYS = 10_000  # whose columns are remembered


class Column:
    """A column of a table; without a type it does not exist yet."""

    __slots__ = ("data_type", "is_documented", "name")

    def __init__(self, name: str, data_type: TDataType | None, *, is_documented: bool) -> None:
        self.name = name
        self.data_type = data_type
        self.is_documented = is_documented


NO_COLUMN = Column("", None, is_documented=False)


class TableColumns(dict[str, Column]):
    """The column of each key: documented ones, and at most 100 that appear with their data.

    It is `NO_COLUMN` where there is none and can't be one. `naming` returns the column name for a
    key. `new` has the columns that have appeared.
    """

    def __init__(self, documented: Mapping[str, TDataType], naming: Callable[[str], str]) -> None:
        super().__init__()
        self._naming = naming
        self._by_name = {
            name: Column(name, data_type, is_documented=True)
            for name, data_type in documented.items()
        }
        self._undocumented = 0
        self._stored = frozenset[str]()
        self.new: dict[str, TDataType] = {}

    def restore(self, stored: Mapping[str, TDataType]) -> None:
        """Take over the columns that earlier runs have made."""
        self._stored = frozenset(stored)
        for name, data_type in stored.items():
            if name not in self._by_name and name != EXTRA_FIELDS:
                self._by_name[name] = Column(name, data_type, is_documented=False)
                self._undocumented += 1

    def __missing__(self, key: str) -> Column:
        column = self._find(self._naming(key))
        is_final = column.data_type is not None or column is NO_COLUMN
        if is_final and len(self) < MAX_KEYS:
            self[key] = column
        return column

    def name_for(self, column: Column, data_type: TDataType) -> str | None:
        """Return where a value of that type goes: the column, or dlt's variant of it for the type.

        None if there is no such column, and can't be one.
        """
        if column.data_type not in (None, data_type):
            column = self._find(f"{column.name}__v_{data_type}")
        if column.data_type is None and column is not NO_COLUMN and self._has_room():
            column.data_type = data_type
            self._by_name[column.name] = column
            self._undocumented += 1
            self.new[column.name] = data_type
        return column.name if column.data_type == data_type else None

    def extra_fields(self) -> str:
        """Return the name of the column for what has no column of its own."""
        if EXTRA_FIELDS not in self._stored:
            self.new[EXTRA_FIELDS] = "json"
        return EXTRA_FIELDS

    def _find(self, name: str) -> Column:
        is_possible = name != EXTRA_FIELDS and self._has_room()
        unknown = Column(name, None, is_documented=False) if is_possible else NO_COLUMN
        return self._by_name.get(name, unknown)

    def _has_room(self) -> bool:
        return self._undocumented < MAX_UNDOCUMENTED
