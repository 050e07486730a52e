"""Compiles the native programs while a wheel is built, or this checkout is installed for development.

Without a C compiler, or elsewhere than on x86-64, the wheel has none: the tracer through strace serves, every call of
`tv run` starts Python, and paths are looked at one by one.  The command `tv` is the launcher, or else a script.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TRACER = Path("plugins/tvplugins/tracer/native")
LAUNCHER = Path("taskvault/warm/native")
LOOKS = Path("taskvault/run/native")
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
# A block of bytes that needs nothing of the program that it is mapped into.
ALONE = [
    *("-ffreestanding", "-fPIE", "-fvisibility=hidden", "-fno-stack-protector", "-fcf-protection=none"),
    *("-fno-asynchronous-unwind-tables", "-fno-jump-tables", "-fno-tree-loop-distribute-patterns"),
    *("-fno-tree-vectorize", "-mgeneral-regs-only", "-nostdlib", "-static"),
    "-Wl,-T,inside.ld,--oformat=binary,--build-id=none",
]
TRACER_SOURCES = [
    "trace.c",
    "stops.c",
    "call_stops.c",
    "programs.c",
    "tasks.c",
    "filter.c",
    "record.c",
    "inject.c",
    "sites.c",
    "texts.c",
]
LAUNCHER_SOURCES = ["launch.c", "identity.c", "ask.c", "talk.c", "run.c", "start.c"]
PRODUCTS = {
    TRACER: {
        "taskvault-trace": [*FLAGS, *TRACER_SOURCES],
        "taskvault-inside.bin": [*FLAGS, *ALONE, "inside.c", "maps.c"],
        "taskvault-repeats.so": [*FLAGS, "-fPIC", "-shared", "repeats.c"],
    },
    # Without libraries to load it starts in half the time.
    LAUNCHER: {"taskvault-launch": [*FLAGS, "-static", *LAUNCHER_SOURCES]},
    LOOKS: {"taskvault-looks.so": [*FLAGS, "-fPIC", "-shared", "looks.c"]},
}
"""Directory to products and how each is compiled."""
TV = LAUNCHER / "taskvault-launch"
TV_IN_PYTHON = Path("packaging/tv.py")


class NativeHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        tv = TV
        for folder, products in PRODUCTS.items():
            reason = compile_all(Path(self.root) / folder, products)
            if reason and folder == TV.parent:
                tv = TV_IN_PYTHON
            if reason:
                self.app.display_warning(f"The programs of {folder} are left out ({reason}); Python does it instead.")
            elif version != "editable":
                inside = str(folder).removeprefix("plugins/")
                build_data["force_include"] |= {
                    str(Path(self.root) / folder / name): f"{inside}/{name}" for name in products
                }
                build_data["pure_python"] = False
                build_data["tag"] = "py3-none-linux_x86_64"
        build_data["shared_scripts"] |= {str(Path(self.root) / tv): "tv"}


def compile_all(folder: Path, products: Mapping[str, list[str]]) -> str:
    """Compile what belongs into a folder; return why it cannot be done, or nothing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"this is {sys.platform} on {platform.machine()}"
    if compiler is None:
        return "there is no C compiler"
    for name, arguments in products.items():
        reason = _compiled(compiler, folder, name, arguments)
        if reason and "-static" in arguments:
            # The C library may be there only as one to be loaded.
            reason = _compiled(compiler, folder, name, [each for each in arguments if each != "-static"])
        if reason:
            return reason
    return ""


def _compiled(compiler: str, folder: Path, name: str, arguments: list[str]) -> str:
    # To another name first: a program that runs cannot be written over.
    done = subprocess.run(
        [compiler, *arguments, "-o", f"{name}.new"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return next((line for line in said if "error:" in line), said[-1] if said else f"{compiler} failed")
    (folder / f"{name}.new").replace(folder / name)
    return ""


if __name__ == "__main__":
    reasons = [compile_all(Path(__file__).parent.parent / folder, products) for folder, products in PRODUCTS.items()]
    sys.exit("; ".join(filter(None, reasons)) or 0)
