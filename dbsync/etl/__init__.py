"""How do rows cross? Crossings as values, composed along the revision path into one query a table."""

from dbsync.etl.crossing import Crossing, table

__all__ = ["Crossing", "table"]
