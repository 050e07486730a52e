"""The published tables of traced runs: what does not count, and who looks at more than content.

docs/design/task-key.md explains them.  What is on none of these lists counts.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

SESSION_VARIABLES = (
    # where and how the shell was started
    "PWD", "OLDPWD", "SHLVL", "_", "PS1", "PS2", "PS3", "PS4", "PROMPT_COMMAND", "PROMPT_DIRTRIM", "HISTFILE",
    "HISTSIZE", "HISTFILESIZE", "HISTCONTROL", "HISTIGNORE", "HISTTIMEFORMAT", "BASH_EXECUTION_STRING", "SHELLOPTS",
    # the terminal and its window
    "WINDOWID", "WINDOWPATH", "VTE_VERSION", "TERM_PROGRAM", "TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID", "ITERM_*", "KONSOLE_*", "ALACRITTY_*", "KITTY_*", "WEZTERM_*", "TMUX", "TMUX_PANE", "STY",
    "GPG_TTY",
    # the session and its agents
    "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "DISPLAY",
    "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS", "SESSION_MANAGER", "DESKTOP_SESSION", "GDMSESSION",
    "XDG_SESSION_*", "XDG_SEAT", "XDG_VTNR", "XDG_RUNTIME_DIR", "GNOME_*", "KDE_*", "MAIL", "INVOCATION_ID",
    "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_*", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS",
    # a scratch directory is the run's own
    "TMPDIR", "TMP", "TEMP",
    # ours
    "TASKVAULT", "TASKVAULT_HOME", "TASKVAULT_PATIENCE_S", "TASKVAULT_RUN", "TASKVAULT_WARM", "TASKVAULT_WARM_IDLE_S",
    "TASKVAULT_AUDIT",
    # how many jobs run at once, and make's own bookkeeping of it
    "MAKELEVEL", "MFLAGS", "CARGO_MAKEFLAGS", "NUM_JOBS",
)  # fmt: skip
"""Variables that say who asked, and not for what; a result that holds the value of one is kept for that value."""

DEVICES = re.compile(
    r"/dev/(?:null|zero|full|random|urandom|tty|stdin|stdout|stderr|ptmx|(?:fd|pts)(?:/.*)?)\Z", re.DOTALL
)
"""Devices that are the same for everyone, or random for everyone."""

TERMINALS = re.compile(r"/dev/(?:tty|pts/\d+)\Z")
"""What somebody types there is known to nobody beforehand."""

ITSELF = re.compile(
    r"/proc/(?:self|thread-self)(?!/(?:mounts|mountinfo|mountstats|cgroup|uid_map|gid_map))(?:/.*)?\Z", re.DOTALL
)
"""What a process asks the kernel about itself."""

OTHER_PROCESSES = re.compile(r"/proc(?:/\d+(?:/.*)?)?\Z", re.DOTALL)

VOLATILE = re.compile(
    r"/proc/(?:meminfo|stat|loadavg|uptime|vmstat|zoneinfo|buddyinfo|slabinfo|diskstats|interrupts|softirqs|schedstat"
    r"|swaps|pressure/.*|sys/kernel/random/.*|sys/fs/(?:file-nr|inode-nr|inode-state|dentry-state)|sys/kernel/ns_last_pid)"
    r"|/sys/fs/cgroup(?:/.*)?|/sys/kernel/mm/(?:ksm|hugepages|transparent_hugepage)(?:/.*)?"
    r"|/sys/devices/system/(?:node|cpu)/.*(?:meminfo|numastat|vmstat|cpufreq/.*|cpuidle/.*)"
    r"\Z",
    re.DOTALL,
)
"""What the kernel measures anew each time it is asked; as time and randomness, it is no input."""

LIMITS = re.compile(r"/proc/(?:self/(?:cgroup|mountinfo|mounts)|cgroups)\Z")
COUNT_PROCESSORS = re.compile(r"(?:ninja|samu|java|javac|node|rustc|cargo|go|dotnet)\Z")
"""Programs that read `LIMITS` only to learn how many processors and how much memory they may use: as good as asking the
kernel for the number of processors, which no tracer sees."""

TOOL_CACHES = (
    "~/.cache", "~/.cache/*", "~/.ccache/*", "~/.npm/_cacache/*", "~/.npm/_logs/*", "~/.npm/_update-notifier*",
    "~/.cargo/registry/*", "~/.cargo/git/*", "~/.cargo/.package-cache*", "~/.cargo/.global-cache*", "~/go/pkg/mod/*",
    "~/.gradle/caches/*",
    "~/.m2/repository/*", "~/.config/go/telemetry/*", "*/__pycache__/*.pyc*", "*/__pycache__",
)  # fmt: skip
"""Outside of the root: read as inputs, and what is written is dropped.  `~` is the caller's home; `*` matches `/`."""

CACHE_NOTES = ("~/.cache/go-build/trim.txt",)
"""When a tool last tidied its cache: no input."""

CACHES_BY_DIGEST = ("~/.cache/go-build/??/*", "~/.cache/go-build/??", "~/.cache/go-build/README", "~/.cache/go-build")
"""Caches in which each name is the digest of all that its content was made from.  What a run did not find there, and
made, is what anybody would make under that name, so it does not count whether it is there later."""

KEEP_TIMES = frozenset({
    "tar", "bsdtar", "star", "cpio", "pax", "zip", "7z", "7za", "7zz", "rar", "ar", "mksquashfs", "genisoimage",
    "mkisofs", "xorriso", "gzip", "pigz", "date", "ls", "dir", "vdir", "stat", "tree", "getfacl",
    "dpkg-deb", "rpmbuild",
})  # fmt: skip
"""Programs for which times and owners of what they look at are content."""

_IMAGE_MAGICK = (
    "convert", "magick", "mogrify", "composite", "montage", "identify", "compare", "conjure", "stream", "import",
)  # fmt: skip
_IMAGE_MAGICK_ENDINGS = ("", "-im6", "-im6.q16", "-im6.q16hdri", "-im7", "-im7.q16", "-im7.q16hdri")

KEEP_TIMES_OF_FILES = frozenset({
    "find", "diff", "pr", "jar", "lzop", "gm", "exiftool",
    *(name + ending for name in _IMAGE_MAGICK for ending in _IMAGE_MAGICK_ENDINGS),
})  # fmt: skip
"""The same, but directories they only look into: those change with everything that is made.

`diff` and `pr` print when a file was changed, ImageMagick writes it into pictures.
"""

_HARMLESS_LISTING = re.compile(r"-[1aAbBCdFhHikLmNpqQrRsSvxX]+\Z")
_CONFIGURE_ASKS = ("-t", "-Lt")
"""configure compares a file of the project with one that it has just made, `conftest.file`: as pairs of files are."""
_LISTING_PROGRAMS = frozenset({"ls", "dir"})

COPY_TIMES = frozenset({"cp", "rsync", "install"})
"""Those for which times and owners are content only if they set attributes of what they make."""

IGNORE_TIMES = re.compile(
    r"(?:(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|cpp|as|ld|ld\.bfd|ld\.gold|ld\.lld|lld|mold|nm|objdump|readelf"
    r"|strip|objcopy|ranlib)(?:-[\d.]+)?|cc1|cc1plus|collect2|lto1|lto-wrapper|rustc|compile|asm|link|m4|sed|awk|gawk|mawk"
    r"|grep|cat|cmp|diff|sort|tr|cut|head|tail|mkdir|rm|rmdir|mv|ln|chmod|expr|basename|dirname|uname|true|false|echo)\Z"
)
"""Programs that never compare when files were changed; all others are taken to do so."""

REPLACE_OUTPUTS = re.compile(
    r"(?:(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|as|ld|ld\.bfd|ld\.gold|ld\.lld|lld|mold)(?:-[\d.]+)?"
    r"|cc1|cc1plus|collect2|lto1|lto-wrapper|rustc)\Z"
)
"""Programs that look at a file that they are going to make only in order to remove it."""


@lru_cache(4096)
def is_session_variable(name: str) -> bool:
    """Whether a variable does not count."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SESSION_VARIABLES)


def keeps_times(program: str, arguments: Sequence[str] | None) -> bool:
    """Whether times and owners of all that a program looks at are content; None for arguments that are not known.

    `ls` shows them only if it is asked to; `-t` compares them, as other programs do.
    """
    if program not in KEEP_TIMES:
        return False
    if program not in _LISTING_PROGRAMS or not arguments:
        return True
    options = [each for each in arguments[1:] if len(each) > 1 and each.startswith("-")]
    if len(arguments) == 4 and arguments[1] in _CONFIGURE_ASKS and arguments[3] == "conftest.file":
        return False
    return not all(_HARMLESS_LISTING.match(option) for option in options)
