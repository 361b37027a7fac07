"""The Debian package's scripts."""

import os
import subprocess
from pathlib import Path

from tests.support import REPOSITORY


def test_a_service_that_does_not_start_leaves_no_package_half_configured(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$1 $2" >> {calls}\n[ "$2" != try-restart ]\n')
    program.chmod(0o755)
    text = (REPOSITORY / "packaging/deb/postinst").read_text(encoding="utf-8")
    script = tmp_path / "postinst"
    script.write_text(text.replace("/run/systemd/system", str(tmp_path)))  # here systemd may not run
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(script), "configure", "1.0"], env=environment, check=False)
    assert done.returncode == 0
    assert calls.read_text().split() == ["daemon-reload", "--no-block", "try-restart"]
