"""Everything is in pyproject.toml. This says what the machine lacks before pip starts to compile."""

import runpy
import sys

from setuptools import setup

sys.exit(lack) if (lack := runpy.run_path("scripts/prerequisites.py")["missing"]()) else setup()
