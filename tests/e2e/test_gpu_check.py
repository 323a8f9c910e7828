"""The check of a card, `tests/gpu/check.py`: what fails or hangs is written down, and does not cost the other steps."""

from __future__ import annotations

import json
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.gpu import check
from tests.gpu.check import Check


def begun(out: Path, seconds: float = 60.0) -> Check:
    return Check(out, False, time.monotonic() + seconds, {"steps": []}, {})


@pytest.mark.slow
def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    """With its children; what it said before is kept."""
    began = time.monotonic()
    code, said = begun(tmp_path).run(
        "hung", 8.0, [sys.executable, "-uc", "print('said'); import time; time.sleep(300)"]
    )
    assert (code, said) == (124, "said\n")
    assert time.monotonic() - began < 20
    assert "said" in (tmp_path / "log.txt").read_text()


def test_a_step_for_which_no_time_is_left_is_left_out(tmp_path: Path) -> None:
    assert begun(tmp_path, 1.0).run("late", 60.0, [sys.executable, "-c", "print(1)"]) == (None, "")


REPORT = """<testsuites><testsuite>
<testcase name="fine"><properties><property name="ratio" value="1.2"/></properties></testcase>
<testcase name="bad"><failure message="assert 1 == 2">long text</failure></testcase>
<testcase name="left"><skipped message="needs two cards"/></testcase>
</testsuite></testsuites>"""


def test_what_tests_found_is_read_from_their_report(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(REPORT)
    found = check.tested(tmp_path / "a.xml")
    assert found == {
        "passed": 1, "failed": {"bad": "assert 1 == 2"}, "skipped": {"left": "needs two cards"},
        "measured": {"fine: ratio": "1.2"},
    }  # fmt: skip
    assert check.tested(tmp_path / "none.xml")["failed"]


def test_the_table_tells_what_failed(tmp_path: Path) -> None:
    steps = [
        {"name": "one", "code": 1, "seconds": 2.0, "passed": 3, "failed": {"bad": "assert 1 == 2"}},
        {"name": "two", "code": 124, "seconds": 9.0, "benches": [
            {"bench": "walk/net", "value": 0.9, "bound": 0.95, "kind": "at least", "ok": False},
            {"bench": "walk/other", "failed": "OutOfMemoryError: 3 GiB", "bound": None},
        ]},
        {"name": "three", "code": None, "seconds": 0.0, "benches": []},
    ]  # fmt: skip
    text = "\n".join(check.table({"steps": steps}))
    for wanted in ("FAILED bad: assert 1 == 2", "NO", "OutOfMemoryError", "ended at its limit", "left out, no time"):
        assert wanted in text
    assert not check.ok({"steps": steps, "dry": True})
    assert check.ok({"steps": steps[2:], "dry": True})
    assert not check.ok({"steps": steps[2:], "dry": False})
    assert check.ok({"steps": [{"name": "one", "code": 0, "seconds": 2.0, "passed": 3, "failed": {}}], "dry": False})


def test_lines_of_benches_are_found_among_others() -> None:
    line = {"bench": "walk/net", "value": 1.0}
    assert [*check.lines(f'warning\n{json.dumps(line)}\n{{"bench": cut off')] == [line]


def test_wheels_are_unpacked_where_they_are_missing_or_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".whl").mkdir()
    for name in ("surely_not_there-1.0", "pytest-0.1", "zarr-999.0"):
        with zipfile.ZipFile(tmp_path / ".whl" / f"{name}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    check.unpacked(tmp_path / "site")
    assert {path.stem for path in (tmp_path / "site").iterdir()} == {"surely_not_there-1.0", "zarr-999.0"}
