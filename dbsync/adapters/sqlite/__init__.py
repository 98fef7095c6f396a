"""SQLite as a database of dbsync's: the embedded default, one file a side."""

from dbsync.adapters.sqlite.database import SqliteDatabase

__all__ = ["SqliteDatabase"]
