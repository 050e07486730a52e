"""Compiles the native tracer while a wheel is built, or this checkout is installed for development.

Without a C compiler, or elsewhere than on x86-64, the wheel has none and the tracer through strace serves.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("plugins/tvplugins/tracer/native")
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
# A block of bytes that needs nothing of the program that it is mapped into.
ALONE = [
    *("-ffreestanding", "-fPIE", "-fvisibility=hidden", "-fno-stack-protector", "-fcf-protection=none"),
    *("-fno-asynchronous-unwind-tables", "-fno-jump-tables", "-fno-tree-loop-distribute-patterns"),
    *("-fno-tree-vectorize", "-mgeneral-regs-only", "-nostdlib", "-static"),
    "-Wl,-T,inside.ld,--oformat=binary,--build-id=none",
]
TRACER = [
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
PRODUCTS = {
    "taskvault-trace": [*FLAGS, *TRACER],
    "taskvault-inside.bin": [*FLAGS, *ALONE, "inside.c", "maps.c"],
}


class NativeTracerHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root) / NATIVE
        reason = compile_all(folder)
        if reason:
            self.app.display_warning(f"The native tracer is left out ({reason}); strace serves in its place.")
            return
        if version != "editable":
            build_data["force_include"] |= {str(folder / name): f"tvplugins/tracer/native/{name}" for name in PRODUCTS}
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"


def compile_all(folder: Path) -> str:
    """Compile what is not there; return why it cannot be done, or nothing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"this is {sys.platform} on {platform.machine()}"
    if compiler is None:
        return "there is no C compiler"
    for name, arguments in PRODUCTS.items():
        # To another name first: a program that runs cannot be written over.
        done = subprocess.run(
            [compiler, *arguments, "-o", f"{name}.new"], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{compiler} failed"
        (folder / f"{name}.new").replace(folder / name)
    return ""


if __name__ == "__main__":
    sys.exit(compile_all(Path(__file__).parent.parent / NATIVE) or 0)
