"""The command line: one file per verb, `wiring` (the only place that chooses adapters) and `render`."""
