"""A real file system that is full, mounted where the system lets an ordinary process do so."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from learner.images import write_digits

OWN = ("unshare", "--map-root-user", "--mount")
"""A command behind this may mount what nobody else sees, and what is gone when it ends."""


def can_mount(place: Path) -> bool:
    mount = (*OWN, "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place))
    return (
        shutil.which("unshare") is not None and not subprocess.run(mount, capture_output=True, check=False).returncode
    )


def test_a_learning_that_fills_the_disk_leaves_the_model_and_goes_on_with_more_room(tmp_path: Path) -> None:
    for name, digits in (("low", (0, 1)), ("mid", (2, 3, 4))):
        write_digits(tmp_path / "images" / name, digits)
    write_digits(tmp_path / "images" / "low-test", (0, 1), first=8, count=3)
    disk, plenty = tmp_path / "disk", tmp_path / "plenty"
    disk.mkdir()
    plenty.mkdir()
    if not can_mount(disk):
        pytest.skip("this system lets no ordinary process mount a file system")
    script = str(Path(__file__).with_name("small_disk.py"))
    done = subprocess.run(
        [*OWN, sys.executable, script, str(tmp_path / "images"), str(disk), str(plenty)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    refused = [entry for entry in found["full"] if entry["code"] != 0]
    assert len(refused) >= 3
    for entry in refused:
        assert "No space left on device" in entry["said"], entry
        assert entry["same"], entry
        assert entry["asked"] == 0, entry
    assert found["again"] == [0, ""]
    assert found["equal"]
