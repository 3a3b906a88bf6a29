from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.journal import Journal, read_journal


def write(path: Path, *numbers: int) -> None:
    journal = Journal(path)
    for number in numbers:
        journal.append("result", number=number)
    journal.close()
    journal.close()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert list(read_journal(path)) == []
    write(path, 1, 2)
    write(path, 3)
    assert [r["number"] for r in read_journal(path)] == [1, 2, 3]


def test_a_whole_record_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-1])
    write(path, 3)
    assert [r["number"] for r in read_journal(path)] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(2, 12))
def test_a_torn_last_line_is_ignored_and_cut_off_before_writing_on(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-cut])
    assert [r["number"] for r in read_journal(path)] == [1]
    write(path, 3)
    assert [r["number"] for r in read_journal(path)] == [1, 3]


def test_a_damaged_line_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1, 2, 3)
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":7'))
    assert [r["number"] for r in read_journal(path)] == [1, 3]
    assert "journal.jsonl:2: damaged record skipped" in caplog.text
