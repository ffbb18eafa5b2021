"""Print setup.py's lower bounds as a pip constraints file: `torch>=2.8` becomes `torch==2.8`."""

import re
import runpy
from itertools import chain
from pathlib import Path

import setuptools

arguments: dict = {}
setuptools.setup = lambda **found: arguments.update(found)
runpy.run_path(str(Path(__file__).parents[1] / "setup.py"))
for requirement in sorted({*arguments["install_requires"], *chain(*arguments["extras_require"].values())}):
    name, bound = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement).groups()
    print(f"{name}=={bound}")
