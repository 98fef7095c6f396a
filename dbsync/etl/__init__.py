"""How do rows cross? Crossings as values, composed along the revision path into one query a table; and jobs."""

from dbsync.etl.crossing import Crossing, table
from dbsync.etl.job import Job

__all__ = ["Crossing", "Job", "table"]
