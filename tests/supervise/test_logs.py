"""A child's log: bounded, rotated, private."""

import stat
from pathlib import Path

from llamamgr.supervise import logs
from llamamgr.supervise.logs import LogSink


def test_lines_cut_anywhere_come_out_whole(tmp_path: Path):
    sink = LogSink(tmp_path / "a.log")
    for piece in (b"one\ntw", b"o\nthr", b"ee"):
        sink.write(piece)
    assert sink.tail(10) == ["one", "two", "three"]
    assert sink.tail(1) == ["three"]
    sink.close()
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\nthree"


def test_memory_is_bounded_by_lines_and_by_their_length(tmp_path: Path):
    sink = LogSink(tmp_path / "a.log")
    sink.write(b"x" * 1_000_000)
    sink.write(b"\n" + b"line\n" * 5000)
    assert len(sink.tail(100_000)) <= 400
    assert max(map(len, sink.tail(100_000))) <= 2000
    sink.close()


def test_the_file_is_rotated_and_only_its_owner_reads_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(logs, "_FILE_BYTES", 100)
    sink = LogSink(tmp_path / "a.log")
    for _ in range(20):
        sink.write(b"y" * 60 + b"\n")
    sink.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_disk_that_takes_nothing_costs_the_file_and_not_the_ring():
    sink = LogSink(Path("/dev/full"))
    sink.write(b"still here\n")
    assert sink.tail(1) == ["still here"]
    sink.close()
