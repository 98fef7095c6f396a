"""The mutants, as data: a rule's number, what is taken out, where, and the test that must fail then.

A rule that is held twice (by a check and by the one behind it) needs both taken out: its mutant has two changes.
"""

from __future__ import annotations

from dataclasses import dataclass

GUARD = "dbsync/adapters/sqlite/guard.py"
OBJECTS = "dbsync/adapters/sqlite/objects.py"
ROWS = "dbsync/adapters/sqlite/rows.py"
WRITING = "dbsync/adapters/sqlite/writing.py"
MIGRATING = "dbsync/adapters/sqlite/migrating.py"
PUMP = "dbsync/sync/pump.py"
LINK = "dbsync/sync/link.py"
PUT = "dbsync/etl/run.py"

HERE = "tests/acceptance/test_protocol_"
KEPT = "tests/unit/sync/test_kept.py::"


@dataclass(frozen=True, slots=True)
class Change:
    """Text of a file, which must occur exactly once, and what is put in its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule taken out. `test` is the node id of the test that must fail."""

    rule: str
    out: str
    test: str
    changes: tuple[Change, ...]


def mutant(rule: str, out: str, test: str, *changes: tuple[str, str, str]) -> Mutant:
    """A mutant whose test stands in one of the protocol's own files."""
    return Mutant(rule, out, HERE + test, tuple(Change(*change) for change in changes))


MUTANTS = (
    mutant(
        "1",
        "the cede looks neither at the fence's end nor at the position",
        "owner.py::test_a_write_after_the_fence_has_ended_survives_a_coordinator_that_wakes_late",
        (GUARD, "holds = guard.state is GuardState.FENCED and not guard.accepts", "holds = True"),
        (GUARD, "if position(connection) != final:", "if False:"),
    ),
    mutant(
        "2",
        "an apply asks neither for the role nor for the checkpoint under its lock",
        "owner.py::test_a_follower_frozen_before_its_begin_writes_nothing_after_a_whole_cutover",
        (MIGRATING, "if not fits or guard.epoch != epoch:", "if False:"),
        (WRITING, "if (present.position if present else None) != expected:", "if False:"),
    ),
    mutant(
        "2",
        "a lock that is not had in time is not the end of the drain",
        "owner.py::test_a_follower_frozen_inside_its_transaction_costs_the_cutover_and_nothing_else",
        (PUMP, 'if deadline is None or held.code != "database-locked":', "if True:"),
    ),
    mutant(
        "§2",
        "the fingerprint that the cede compares is read after the fence",
        "races.py::test_a_trigger_that_slept_for_a_moment_before_the_fence_costs_the_cutover[blue]",
        ("dbsync/cutover/run.py", "expected = self._unchanged()", "expected = self.old.fingerprint()"),
    ),
    mutant(
        "3",
        "a window is applied wherever the checkpoint stands",
        "races.py::test_a_window_that_arrives_after_a_later_one_is_not_applied",
        (WRITING, "if (present.position if present else None) != expected:", "if False:"),
    ),
    mutant(
        "5",
        "the custodian does not act when its deadline has passed, nor when the coordinator is stopped",
        "owner.py::test_wherever_the_coordinator_is_lost_one_side_takes_writes_in_time[stopped behind the cede]",
        ("dbsync/cli/custodian.py", "if time.monotonic() > self.deadline:", "if False:"),
        ("dbsync/cli/custodian.py", "if self._stopped():", "if False:"),
    ),
    mutant(
        "5",
        "the custodian does not act when the coordinator is gone",
        "owner.py::test_wherever_the_coordinator_is_lost_one_side_takes_writes_in_time[killed behind the cede]",
        (
            "dbsync/cli/custodian.py",
            'log.info("the coordinator is gone")',
            "return None",
        ),
    ),
    mutant(
        "6",
        "the position is read before the writers have ended",
        "races.py::test_a_writer_open_across_the_fence_is_waited_for_and_carried_over[IMMEDIATE]",
        (
            "dbsync/cutover/run.py",
            '        with self._timed("fence"):\n',
            (
                "        with self.old.view() as view:\n"
                "            final = view.position()\n"
                '        with self._timed("fence"):\n'
            ),
        ),
        (
            "dbsync/cutover/run.py",
            "                final = view.position()\n            pump.drain(final",
            "                pass\n            pump.drain(final",
        ),
    ),
    mutant(
        "7",
        "an abort decides from what it reads, without the lock",
        "races.py::test_a_resolver_waits_out_a_cede_whose_commit_is_late[abort]",
        ("dbsync/cutover/resolve.py", "world.databases[old].lift(epoch)", "world.databases[old].guard()"),
    ),
    mutant(
        "7",
        "the attempt does not go up",
        "races.py::test_a_cede_that_comes_after_an_abort_is_refused",
        (GUARD, "SET state = 'fenced', attempt = attempt + 1,", "SET state = 'fenced',"),
        (GUARD, "return Fenced(epoch, guard.attempt + 1, owner)", "return Fenced(epoch, guard.attempt, owner)"),
        (GUARD, "SET state = 'open', attempt = attempt + 1, owner = NULL, f", "SET state = 'open', owner = NULL, f"),
    ),
    mutant(
        "8",
        "nobody acts when the coordinator was killed",
        "traffic.py::test_a_killed_coordinator_leaves_no_write_waiting",
        (
            "dbsync/cli/custodian.py",
            'log.info("the coordinator is gone")',
            "return None",
        ),
    ),
    mutant(
        "8",
        "a follower leaves an orphan hold where it is",
        "traffic.py::test_a_follower_takes_an_orphan_hold_away_when_the_whole_group_was_killed",
        ("dbsync/cli/sync.py", "    heal(session, thorough=True)\n", ""),
        ("dbsync/cli/sync.py", "            heal(self.session, thorough=False)\n", ""),
    ),
    mutant(
        "8",
        "the hold is not proven at every replica",
        "traffic.py::test_a_replica_that_does_not_take_the_hold_is_refused_and_undone",
        (
            "dbsync/adapters/traefik_site.py",
            "complaint = until(lambda: self._unproven(held, tag, mark),",
            "complaint = until(lambda: None,",
        ),
        (
            "dbsync/adapters/traefik_site.py",
            "complaint = until(lambda: self._without_way(rule),",
            "complaint = until(lambda: None,",
        ),
    ),
    mutant(
        "9",
        "an abort does not tell the gate where what it holds goes",
        "traffic.py::test_an_abort_sends_every_held_write_to_the_old_side",
        (
            "dbsync/cutover/resolve.py",
            "world.gate.decide(old) if world.gate is not None else None",
            "None",
        ),
    ),
    mutant(
        "10",
        "the user's triggers are awake on the idle side",
        "races.py::test_no_trigger_of_the_users_acts_twice_when_a_cutover_dies_before_its_cede",
        (OBJECTS, "tables = set(read_catalog(connection, exclude).tables)", "tables: set[str] = set()"),
    ),
    mutant(
        "10",
        "something that costs by size happens in the opening",
        "races.py::test_the_pause_does_the_same_work_whatever_the_tables_hold",
        (
            GUARD,
            "        wake_triggers(connection)\n",
            '        wake_triggers(connection)\n        connection.execute("PRAGMA integrity_check").fetchall()\n',
        ),
    ),
    mutant(
        "11",
        "reverse writes every cell, whether it was changed over there or not",
        "rows.py::test_a_first_name_of_two_words_survives_the_way_there_and_back",
        ("dbsync/etl/merge.py", "if ours is None or base is None:", "if True:"),
    ),
    mutant(
        "12",
        "columns that only the newer shape has are overwritten",
        "rows.py::test_a_value_in_a_new_column_survives_a_rollback_and_another_cutover",
        (
            PUT,
            "kept = lens.kept.get(table, frozenset()) if composition.direction is Direction.FORWARD else frozenset()",
            "kept: frozenset[str] = frozenset()",
        ),
    ),
    mutant(
        "§4",
        "a row made anew inherits the kept columns of the dead one",
        "rows.py::test_a_row_deleted_and_made_anew_inherits_nothing_of_the_dead_one[replace]",
        (PUT, "if born and lens.path:", "if False:"),
    ),
    Mutant(
        "§5",
        "a row made anew on the older side inherits what is kept for the dead one",
        KEPT + "test_a_row_deleted_and_made_anew_on_the_older_side_gets_nothing_of_the_dead_one",
        (Change(PUMP, "self.keeper.void(born)", "pass"),),
    ),
    Mutant(
        "§5",
        "a kept value comes back although the older side has written another one",
        KEPT + "test_what_the_older_side_writes_wins_and_the_other_column_of_the_row_stays",
        (
            Change(
                "dbsync/adapters/sqlite/keeping.py",
                "here = key in found and _same(base, row[at])",
                "here = key in found",
            ),
        ),
    ),
    mutant(
        "13",
        "deletes come first, and cascade",
        "rows.py::test_a_child_given_to_another_parent_keeps_its_own_children",
        ("dbsync/adapters/sqlite/connection.py", "PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
        (LINK, "if self.table(name).uniques:", "if True:"),
    ),
    mutant(
        "13",
        "a row that holds a unique value is not parked",
        "rows.py::test_unique_values_that_go_round_in_a_circle_arrive",
        (WRITING, "self._park_holders(shape, full, key)", "pass"),
    ),
    mutant(
        "14",
        "what was written to the idle side behind dbsync's back is not asked for",
        "rows.py::test_an_untouched_row_changed_on_the_idle_side_is_seen_although_no_window_carries_it",
        ("dbsync/cutover/gate.py", "if evidence.foreign:", "if False:"),
    ),
    mutant(
        "15",
        "a table whose shape has changed is not stale",
        "evidence.py::test_a_migration_of_the_idle_side_makes_it_unready_though_no_row_changed",
        ("dbsync/cutover/world.py", "stale=pump.stale(),", "stale=(),"),
    ),
    mutant(
        "17",
        "the guard has no trigger for DELETE",
        "races.py::test_emptying_a_table_under_the_fence_is_refused",
        (OBJECTS, '(("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE"))', '(("i", "INSERT"), ("u", "UPDATE"))'),
    ),
    mutant(
        "17",
        "excluded tables are guarded and recorded like the others",
        "races.py::test_traffic_on_an_excluded_table_neither_waits_nor_aborts_a_cutover",
        (
            OBJECTS,
            "for table in read_catalog(connection, exclude).tables.values():",
            "for table in read_catalog(connection).tables.values():",
        ),
    ),
    mutant(
        "18",
        "a copy of the file is taken for the file",
        "races.py::test_a_copy_of_a_database_file_is_not_taken_for_it",
        (GUARD, "if checked and node != inode(path):", "if False:"),
    ),
    mutant(
        "18",
        "a position is a number, whatever past it was taken from",
        "races.py::test_a_backup_restored_into_the_same_file_is_another_past",
        (ROWS, "if row is not None and str(row[0]) == nonce:", "if row is not None:"),
    ),
    mutant(
        "20",
        "a crossing may depend on the clock, on chance and on other keys",
        "rows.py::test_a_crossing_that_is_not_key_local_and_deterministic_is_refused",
        ("dbsync/etl/stable.py", "for found in _moods(query, dialect, once):", "for found in ():"),
        ("dbsync/etl/stable.py", "for found in _across(query, known.owns):", "for found in ():"),
    ),
    mutant(
        "20",
        "a read by key does not seek",
        "rows.py::test_every_read_by_key_seeks",
        (
            ROWS,
            'match = " AND ".join(f"q.{quoted(name)} = k.k{i}"',
            'match = " AND ".join(f"+q.{quoted(name)} = k.k{i}"',
        ),
    ),
    mutant(
        "21",
        "rows are not counted independently of the crossing",
        "rows.py::test_an_inner_join_that_drops_rows_is_counted_by_verify",
        (PUT, "if had != gives:", "if False:"),
    ),
    mutant(
        "21",
        "COUNT(*) is not compared with the sum of the ranges",
        "rows.py::test_a_row_whose_key_is_null_is_refused_by_name",
        ("dbsync/verify/run.py", "return mine == view.count(theirs)", "return True"),
    ),
    mutant(
        "22",
        "the guard aborts the statement and leaves the transaction open",
        "rows.py::test_a_refused_insert_whose_transaction_is_left_open_does_not_hold_up_the_cede",
        (OBJECTS, "SELECT RAISE(ROLLBACK, {message})", "SELECT RAISE(ABORT, {message})"),
    ),
    mutant(
        "22",
        "the victims of OR REPLACE are not recorded",
        "rows.py::test_a_row_that_or_replace_removes_is_removed_there_too",
        (OBJECTS, "wanted |= _victim_triggers(number, table, connection)", "pass"),
    ),
    mutant(
        "22",
        "what batch_alter_table drops is not put back",
        "rows.py::test_batch_alter_table_leaves_guard_and_capture_in_place",
        (MIGRATING, "    place_triggers(raw, name, exclude)\n", ""),
    ),
    mutant(
        "24",
        "a table that changed as a whole costs every table",
        "rows.py::test_one_table_that_changed_as_a_whole_costs_that_table_alone",
        (PUMP, "for name in whole:", "for name in self.composition.tables if whole else ():"),
    ),
    mutant(
        "24",
        "a part of a window moves the checkpoint to its end",
        "rows.py::test_a_window_too_large_is_applied_in_parts_and_one_that_dies_leaves_the_checkpoint_where_it_was",
        (
            PUMP,
            "tx.set_checkpoint(start.source, changes.end, expected",
            "tx.set_checkpoint(start.source, view.position(), expected",
        ),
    ),
    mutant(
        "25",
        "a route is written without asking who is live",
        "traffic.py::test_a_reader_on_a_kept_connection_sees_the_new_side_and_a_late_operator_changes_nothing",
        (
            "dbsync/adapters/traefik.py",
            "if self._still_live is not None and not self._still_live(environment):",
            "if False:",
        ),
    ),
)


def problem(mutant: Mutant, read: dict[str, str]) -> str | None:
    """Why a mutant does not apply to the files as they are, or None. `read` holds their texts by name."""
    for change in mutant.changes:
        found = read[change.file].count(change.old)
        if found != 1:
            return f"{change.file} has its text {found} times: {change.old.strip()!r}"
    return None
