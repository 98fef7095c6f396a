"""Progress where there is no terminal: a plain line every five seconds, with rate and time left."""

from __future__ import annotations

import io

from dbsync.cli.places import file_system
from dbsync.cli.progress import Progress, progress_line


def test_a_line_has_the_rate_and_the_time_left() -> None:
    assert progress_line("copy t", 3000, 12000, 2000, 4.0) == "copy t: 3,000 of 12,000 (25 %), 500/s, 18.0 s left"
    assert progress_line("sync", 10, None, 0, 0.0) == "sync: 10"


def test_a_line_comes_at_most_every_five_seconds() -> None:
    now, out = [0.0], io.StringIO()
    report = Progress(lambda: now[0], stream=out)
    for second in range(12):
        now[0] = float(second)
        report("copy t", second * 10, 120)
    assert out.getvalue().splitlines() == [
        "copy t: 50 of 120 (41 %), 10/s, 7.0 s left",
        "copy t: 100 of 120 (83 %), 10/s, 2.0 s left",
    ]


def test_the_nearest_mount_says_the_file_system(tmp_path: object) -> None:
    from pathlib import Path

    mounts = Path(str(tmp_path)) / "mounts"
    mounts.write_text("root / ext4 rw 0 0\nsrv:/x /mnt/share nfs4 rw 0 0\n")
    assert file_system(Path("/mnt/share/blue.db"), mounts) == "nfs4"
    assert file_system(Path("/srv/blue.db"), mounts) == "ext4"
    assert file_system(Path("/srv"), Path("/nowhere")) is None
