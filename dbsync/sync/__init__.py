"""WHICH ROWS? Windows of changed keys, read through the crossings on the active side, applied on the idle one."""
