"""What signals do to a worker, whenever they come."""

import subprocess
import sys

TWICE = """
import os, signal, sys, threading, time
from loguru import logger
from freshvec.worker import signals

stopping = threading.Event()
logger.remove()
logger.add(lambda line: os.kill(os.getpid(), signal.SIGTERM), format="{message}")
signals.handle(stopping.set, lambda: None, stopping)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
sys.exit(0)
"""


def test_a_second_one_ends_at_once_though_it_comes_while_the_first_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, timeout=60, check=False)
    assert done.returncode == 128 + 15, done.stderr.decode()
