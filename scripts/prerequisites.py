"""Says in one line what this machine lacks for installing SheafDB, before anything is built.

Runs under any Python 3. hnswlib is published as source only, so a C++ compiler and Python's
headers are needed once, at install time.
"""

import os
import shutil
import sys
import sysconfig


def missing():
    if sys.version_info < (3, 11):  # noqa: UP036  # this file runs before pip checks requires-python
        found = "{}.{}".format(*sys.version_info[:2])
        return "SheafDB needs Python 3.11 or newer, this is " + found + ": choose one with `make PYTHON=python3.11 ...`"
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    if not any(shutil.which(c) for c in (compiler.split()[0], "c++", "g++", "clang++")):
        return "SheafDB needs a C++ compiler to build hnswlib: install g++ or clang (Debian: apt install g++)"
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "SheafDB needs Python's headers to build hnswlib (Debian: apt install python3-dev)"
    return None


if __name__ == "__main__":
    sys.exit(missing())
