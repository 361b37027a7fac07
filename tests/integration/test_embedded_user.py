"""The user as whom an embedded server runs for root: one, whoever else makes it at the same moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

AT_ONCE = 6
# In a mount namespace with users of its own, since another one would belong to the machine.
MAKING = f"""
set -e
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
sed -i /^pgserver:/d /etc/passwd /etc/shadow /etc/group /etc/gshadow
for _ in $(seq {AT_ONCE}); do "$2" -c "$3" & done
wait
"""
ASKS = "import os, pwd; from freshvec.embedded import server_user; print(pwd.getpwnam(server_user()).pw_uid)"


@pytest.mark.skipif(os.geteuid() != 0, reason="a server runs as whoever starts it, unless that is root")
def test_processes_that_start_servers_at_once_make_one_user(tmp_path: Path) -> None:
    script = ["unshare", "--mount", "sh", "-c", MAKING, "sh", str(tmp_path), sys.executable, ASKS]
    done = subprocess.run(script, capture_output=True, text=True)
    uids = done.stdout.split()
    assert len(uids) == AT_ONCE, done.stderr
    assert len(set(uids)) == 1
