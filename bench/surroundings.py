"""What the measurements need of the checkout: the commands' own modules, which lie in bin/."""

import sys

from bench.work import ROOT

sys.path.insert(0, str(ROOT / "bin"))

from local_store import LocalStore
from process import Process
from reaper import Reaper
from stack import Stack

__all__ = ["LocalStore", "Process", "Reaper", "Stack"]
