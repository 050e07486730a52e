"""What each kind of system call means for the observation."""

from __future__ import annotations

import errno
import re

from tvfs.plugin_api.tracer import Before, Use
from tvplugins.tracer import calls
from tvplugins.tracer.calls import DELETED, Call, Exec, Place
from tvplugins.tracer.links import Links
from tvplugins.tracer.notes import Notes
from tvplugins.tracer.programs import HeaderUnclear, interpreter_of
from tvplugins.tracer.tasks import Task

_GONE = (-errno.ENOENT, -errno.ENOTDIR)
_NO_ANSWER = frozenset(
    -number
    for number in (errno.EFAULT, errno.ENAMETOOLONG, errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EINTR, errno.ERANGE)
)
"""Errors that say nothing of what is on disk."""
_THERE_ALL_THE_SAME = (-errno.ENODATA, -errno.EOPNOTSUPP, -errno.ERANGE, -errno.EOVERFLOW)
"""Errors of asking for attributes of what is there."""
_RENAME_EXCHANGE = 2
_NEW_LISTENER = 8
_ANY_OPEN_ACCESS = calls.O_WRONLY | calls.O_RDWR
_OWN = re.compile(r"/proc/(?:thread-self|(\d+))(?=/|$)")
_MAGIC = re.compile(r"/proc/(self|\d+)/(?:task/\d+/)?(cwd|root|exe|fd/\d+|map_files/[^/]+)(?:/(.*))?$", re.DOTALL)
"""Names that lead where no path says: only the kernel knows."""
_ANY_PORT_HERE = re.compile(r"(?:127\.0\.0\.1|\[::1\]):0\Z")
_MOST_INTERPRETERS = 6
_LOOKING = frozenset({"look", "readlink", "list_directory"})


def only_looks(call: Call) -> bool:
    """Whether a call changes nothing, so that it means the same for whoever makes it next, unless a process matters."""
    action = calls.SIGNATURES[call.name].action
    if action == "open":
        return not call.flags & (_ANY_OPEN_ACCESS | calls.O_CREAT | calls.O_TRUNC)
    return action in _LOOKING or (action == "execute" and call.result < 0)


class Actions:
    """One method for each `Signature.action`."""

    def __init__(self, links: Links, notes: Notes) -> None:
        self._links = links
        self._notes = notes
        self._made: set[str] = set()
        self.links_made: set[str] = set()
        """Where the command made symlinks."""

    # --- looked at ---------------------------------------------------------------------------------------------------

    def open(self, task: Task, call: Call) -> None:
        """Opened for reading, writing, or only to be named."""
        flags = call.flags
        exclusive = flags & calls.O_CREAT and flags & calls.O_EXCL
        path = self._where(task, call, follow=not (exclusive or flags & calls.O_NOFOLLOW))
        if path is None or (flags & calls.O_TMPFILE) == calls.O_TMPFILE:
            return
        if call.result < 0:
            self._failed(task, path, call.result, there=(-errno.EEXIST, -errno.EISDIR))
        elif flags & calls.O_PATH:
            self._note(task, Use.STATED, path)
        elif not flags & _ANY_OPEN_ACCESS and not flags & calls.O_TRUNC:
            directory = flags & calls.O_DIRECTORY or self._links.is_directory(path)
            self._note(task, Use.STATED if directory else Use.READ, path)
        elif exclusive or flags & calls.O_TRUNC:
            self._make(task, path, before=call.places[0].before, use=Use.CREATED if exclusive else Use.MADE)
        else:
            if flags & calls.O_RDWR:
                self._note(task, Use.READ, path, before=call.places[0].before)
            self._note(task, Use.CHANGED, path, before=call.places[0].before)

    def look(self, task: Task, call: Call) -> None:
        """Asked for attributes."""
        if not call.places[0].path:
            # The attributes of a descriptor: what it names was noted when it was opened.
            return
        follow = not call.flags & calls.AT_SYMLINK_NOFOLLOW or bool(call.flags & calls.AT_SYMLINK_FOLLOW)
        path = self._where(task, call, follow=follow)
        if path is None:
            return
        if call.result < 0:
            self._failed(task, path, call.result, there=_THERE_ALL_THE_SAME)
        else:
            self._note(task, Use.STATED, path)

    def readlink(self, task: Task, call: Call) -> None:
        """Asked where a symlink leads to."""
        path = self._where(task, call, follow=False)
        if path is None:
            return
        target = self._links.target(path)
        if call.result < 0:
            self._failed(task, path, call.result, there=(-errno.EINVAL,))
        elif target is not None and not path.startswith("/proc/"):
            self._note(task, Use.FOLLOWED, path, target)
        else:
            self._note(task, Use.STATED, path)

    def list_directory(self, task: Task, call: Call) -> None:
        """Asked for names."""
        if call.result >= 0:
            path = self._where(task, call, follow=False)
            if path is not None:
                self._note(task, Use.LISTED, path)

    def change_directory(self, task: Task, call: Call) -> None:
        """Went to a directory."""
        path = self._where(task, call, follow=True)
        if path is None:
            return
        if call.result < 0:
            self._failed(task, path, call.result)
        else:
            task.directory.path = call.outcome or path
            self._note(task, Use.STATED, path)

    # --- made and changed --------------------------------------------------------------------------------------------

    def delete(self, task: Task, call: Call) -> None:
        """Removed a name."""
        path = self._where(task, call, follow=False)
        if path is None:
            return
        if call.result < 0:
            self._failed(task, path, call.result)
            return
        if not call.flags & calls.AT_REMOVEDIR:
            self._check_not_led_through(path)
        self._note(task, Use.DELETED, path, before=call.places[0].before)
        self._made.discard(path)
        self._links.forget(path)

    def make(self, task: Task, call: Call) -> None:
        """Made a directory, a pipe or a device."""
        path = self._where(task, call, follow=False)
        if path is None:
            return
        if call.result < 0:
            self._failed(task, path, call.result, there=(-errno.EEXIST,))
        else:
            self._make(task, path, use=Use.CREATED)

    def symlink(self, task: Task, call: Call) -> None:
        """Made a symlink."""
        target = call.places[0].path
        path = self._where(task, call, follow=False, number=1)
        if path is None or target is None:
            return
        if call.result < 0:
            self._failed(task, path, call.result, there=(-errno.EEXIST,))
            return
        self._make(task, path, use=Use.CREATED)
        self.links_made.add(path)
        self._links.make(path, target)

    def link(self, task: Task, call: Call) -> None:
        """Gave a file a second name."""
        target = self._where(task, call, follow=False, number=1)
        follow = bool(call.flags & calls.AT_SYMLINK_FOLLOW)
        # A file without a name gets one so: from its descriptor.
        unnamed = call.places[0].path == "" or (call.places[0].path or "").startswith("/proc/self/fd/")
        source = None if unnamed else self._where(task, call, follow=follow)
        if target is None or (source is None and not unnamed):
            return
        if call.result == -errno.EEXIST:
            self._note(task, Use.STATED, target)
        elif call.result < 0:
            self._failed(task, source or target, call.result)
        else:
            if source is not None:
                self._note(task, Use.READ, source)
            self._make(task, target, use=Use.CREATED)

    def rename(self, task: Task, call: Call) -> None:
        """Moved a name, or exchanged two."""
        source = self._where(task, call, follow=False)
        target = self._where(task, call, follow=False, number=1)
        if source is None or target is None:
            return
        if call.result < 0:
            exists = (-errno.EEXIST, -errno.ENOTEMPTY, -errno.EISDIR)
            self._failed(task, target if call.result in exists else source, call.result, there=exists)
            return
        moved = self._links.target(source)
        if call.flags & _RENAME_EXCHANGE:
            self._check_not_led_through(target)
            if moved is not None or self._links.target(target) is not None:
                self._notes.trouble("symlinks were exchanged")
        self._check_not_led_through(source)
        if moved is None and source not in self._made and self._links.target(target) is not None:
            self._notes.trouble(f"the symlink {target} was there before, at {source}")
        if moved is not None:
            self.links_made.add(target)
        self._note(task, Use.RENAMED, source, target, call.places[0].before)
        if call.flags & _RENAME_EXCHANGE:
            # Both are gone before either is there: in no other order does a move there and back come.
            self._note(task, Use.RENAMED, target, source, call.places[1].before)
            self._make(task, source, target, call.places[0].before)
        self._make(task, target, source, call.places[1].before)
        self._made.discard(source)
        self._links.move(source, target)

    def truncate(self, task: Task, call: Call) -> None:
        """Cut or lengthened a file."""
        self._change(task, call, Use.CHANGED)

    def set_attributes(self, task: Task, call: Call) -> None:
        """Set mode, owner, times or extended attributes."""
        self._change(task, call, Use.ATTRIBUTES)

    # --- other -------------------------------------------------------------------------------------------------------

    def execute(self, task: Task, call: Call) -> None:
        """Could not execute a program."""
        if call.result >= 0:
            return
        path = self._where(task, call, follow=not call.flags & calls.AT_SYMLINK_NOFOLLOW)
        if path is None:
            return
        if call.result in _GONE and self._links.header(path) is not None:
            # It may be its interpreter that is not there.
            self._note(task, Use.REFUSED, path, errno.errorcode[-call.result])
        else:
            self._failed(task, path, call.result)

    def executed(self, task: Task, event: Exec) -> None:
        """Became another program."""
        place = event.place
        as_call = Call("execve", 0, event.flags, (place,), event.program)
        path = self._where(task, as_call, follow=not event.flags & calls.AT_SYMLINK_NOFOLLOW, check=False)
        task.process.programs.append(path or event.program or place.path or place.base)
        task.process.arguments.append(event.arguments)
        if path is not None:
            self._note(task, Use.EXECUTED, path)
            if self._links.gains_rights(path):
                self._notes.trouble(f"{path} has rights of its own, which it did not get")
        self._interpreters(task, path, event)

    def talk(self, task: Task, call: Call) -> None:
        """Named an address to a socket."""
        if call.result == -errno.EFAULT:
            return
        family, _, address = call.outcome.partition(" ")
        error = errno.errorcode.get(-call.result, "") if call.result < 0 else ""
        if error in ("EINPROGRESS", "EAGAIN", "EINTR"):
            error = ""
        if family == "internet":
            # A port that nobody can know says nothing to anyone, unless it is listened at: that is told by itself.
            if not (call.name == "bind" and _ANY_PORT_HERE.match(address)):
                self._note(task, Use.INTERNET, address)
        elif family == "local":
            if not address.startswith("@"):
                address = self._links.resolve(task.directory.path, address, follow=True).path
            self._note(task, Use.LOCAL_SOCKET, address, error)
        elif family == "other":
            self._note(task, Use.OTHER_SOCKET, address)

    def enter(self, task: Task, call: Call) -> None:
        """Left its namespaces, or its working directory to itself."""
        if call.result < 0:
            return
        if call.name == "setns" or call.flags & calls.CLONE_NEW:
            self._notes.trouble(f"a process entered another namespace ({call.name})")
        if call.flags & calls.CLONE_FS:
            task.leave_shared_directory()

    def filter_calls(self, task: Task, call: Call) -> None:
        """Had somebody answer its system calls."""
        if call.result >= 0 and call.flags & _NEW_LISTENER:
            self._notes.trouble("a process had its system calls answered by another")

    # --- shared ------------------------------------------------------------------------------------------------------

    def _where(self, task: Task, call: Call, *, follow: bool, number: int = 0, check: bool = True) -> str | None:
        """Return the path that a call means, noting the links on the way; None if it means none of ours."""
        place = call.places[number]
        if place.path is None:
            if call.result != -errno.EFAULT:
                self._notes.trouble(f"a path of {call.name} could not be read")
            return None
        if place.path == "":
            return self._of_descriptor(task, place, call)
        resolved = self._links.resolve(place.base or task.directory.path, place.path, follow=follow)
        for link, target in resolved.followed:
            self._note(task, Use.FOLLOWED, link, target)
        if resolved.trouble:
            self._notes.trouble(f"a process {resolved.trouble}")
            return None
        if resolved.path.startswith("/proc/"):
            return self._in_proc(task, resolved.path, call, follow)
        if call.result in _GONE:
            # What a path leaves by `..` must be there too.
            missing = next((path for path in resolved.left if not self._links.is_directory(path)), None)
            if missing is not None and call.result == -errno.ENOTDIR:
                self._note(task, Use.STATED, missing)
                return None
            if missing is not None:
                return missing
        if check and number == 0 and call.result >= 0 and call.outcome.startswith("/"):
            self._check_outcome(call, resolved.path)
        return resolved.path

    def _of_descriptor(self, task: Task, place: Place, call: Call) -> str | None:
        if not call.flags & calls.AT_EMPTY_PATH and not calls.SIGNATURES[call.name].implied & calls.AT_EMPTY_PATH:
            # No path at all: the kernel refuses it, and so says nothing.
            return None
        base = place.base or task.directory.path
        own = _OWN.match(base)
        if base.startswith("/proc"):
            self._notes.depends_on_process()
        if own and own[1] is not None and int(own[1]) == task.process.pid:
            return "/proc/self" + base[own.end() :]
        return base if base.startswith("/") and not base.endswith(DELETED) else None

    def _in_proc(self, task: Task, path: str, call: Call, follow: bool) -> str | None:
        self._notes.depends_on_process()
        own = _OWN.match(path)
        if own and (own[1] is None or int(own[1]) == task.process.pid):
            path = "/proc/self" + path[own.end() :]
        magic = _MAGIC.match(path)
        if magic is None or (magic[3] is None and not follow):
            return path
        if call.outcome:
            there = call.outcome
            return there if there.startswith("/") and not there.endswith(DELETED) else None
        whose, what, rest = magic.groups()
        known = {"cwd": task.directory.path, "root": "/"} if whose == "self" else {}
        if what in known:
            return self._links.resolve(known[what], rest or ".", follow=follow).path
        if rest is None and whose == "self":
            # What it has open or runs was noted before.
            return None
        if call.result not in _NO_ANSWER:
            self._notes.trouble("a process looked through /proc where only the kernel knows the way")
        return None

    def _check_outcome(self, call: Call, path: str) -> None:
        outcome = call.outcome
        if path == outcome or outcome.endswith(DELETED) or outcome.startswith("/proc/"):
            return
        self._notes.trouble(f"{path} led to {outcome}, and its links do not say why")

    def _note(self, task: Task, use: Use, path: str, detail: str = "", before: Before | None = None) -> None:
        self._notes.add(use, path, task.process.pid, detail, before)

    def _failed(self, task: Task, path: str, result: int, there: tuple[int, ...] = ()) -> None:
        if result in there:
            self._note(task, Use.STATED, path)
        elif result in _GONE:
            self._note(task, Use.ABSENT, path)
        elif result not in _NO_ANSWER:
            self._note(task, Use.REFUSED, path, errno.errorcode.get(-result, str(-result)))

    def _make(self, task: Task, path: str, detail: str = "", before: Before | None = None, use: Use = Use.MADE) -> None:
        self._note(task, use, path, detail, before)
        self._made.add(path)

    def _change(self, task: Task, call: Call, use: Use) -> None:
        path = self._where(task, call, follow=not call.flags & calls.AT_SYMLINK_NOFOLLOW)
        if path is None:
            return
        if call.result < 0:
            self._failed(task, path, call.result)
        else:
            self._note(task, use, path, before=call.places[0].before)

    def _check_not_led_through(self, path: str) -> None:
        """What is found on disk afterwards says nothing of a path that led elsewhere when it was used."""
        if path not in self._made and self._notes.led_through(path) and self._links.target(path) is None:
            self._notes.trouble(f"{path} was used and then moved or removed")

    def _interpreters(self, task: Task, path: str | None, event: Exec) -> None:
        """Note what the kernel read besides the program: interpreters of scripts, and the loader."""
        program, header = path, self._links.header(path) if path else None
        if event.header and (header is None or event.program in ("", path)):
            program, header = event.program or path, event.header
            if program and program != path and not program.endswith(DELETED):
                self._note(task, Use.READ, program)
        for _ in range(_MOST_INTERPRETERS):
            if header is None:
                name = program or event.program or event.place.base
                self._notes.trouble(f"{name} could not be read, so what interprets it is not known")
                return
            try:
                interpreter = interpreter_of(header)
            except HeaderUnclear as exc:
                self._notes.trouble(f"what interprets {program} is not known: {exc}")
                return
            if interpreter is None:
                return
            resolved = self._links.resolve(task.directory.path, interpreter, follow=True)
            for link, target in resolved.followed:
                self._note(task, Use.FOLLOWED, link, target)
            self._note(task, Use.READ, resolved.path)
            if program is not None and not header.startswith(b"#!"):
                # The loader of an ELF file has none itself.
                return
            program, header = resolved.path, self._links.header(resolved.path)
