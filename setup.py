"""What pyproject.toml cannot say: a wheel holds the code a second time, as `genai_factory` (docs/distribution.md)."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildBoth(build_py):
    """Copies `shared_libs` to `genai_factory`, its own name in the text changed with it."""

    def run(self) -> None:
        """Build as always, then copy; a checkout that is installed as it stands has nothing to copy."""
        super().run()
        if self.editable_mode:
            return
        code, copy = Path(self.build_lib, "shared_libs"), Path(self.build_lib, "genai_factory")
        for source in sorted(code.rglob("*")):
            target = copy / source.relative_to(code)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            elif source == code / "__init__.py":
                continue  # which makes the two names one
            elif source.suffix == ".py":
                target.write_text(re.sub(r"\bshared_libs\b", "genai_factory", source.read_text("utf-8")), "utf-8")
            else:
                shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildBoth})
