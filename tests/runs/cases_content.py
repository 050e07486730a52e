"""What files hold, whose they are, and when they were changed."""

from __future__ import annotations

from tests.runs.case import Case, Expect

HIT, MISS, NEVER = Expect.HIT, Expect.MISS, Expect.NEVER

_LIKE_BEFORE = "touch -r stamp in; rm stamp"

CONTENT = (
    # --- content ---
    Case("a file that was only touched", "cat in > out", HIT, "touch -d 2001-01-01 in", "echo a > in", mounted=True),
    Case("another content", "cat in > out", MISS, "echo b > in", "echo a > in", ("state",), mounted=True),
    Case(
        "another content of the same size and time",
        "cat in > out",
        MISS,
        f"touch -r in stamp; echo b > in; {_LIKE_BEFORE}",
        "echo a > in",
        ("content", "state"),
        mounted=True,
    ),
    Case(
        "another content of the same size and time, renamed into place",
        "cat in > out",
        MISS,
        f"touch -r in stamp; echo b > new; mv new in; {_LIKE_BEFORE}",
        "echo a > in",
        ("content",),
        mounted=True,
    ),
    Case(
        "outputs are gone",
        "mkdir -p d/e; cat in > d/e/out; cat in > out",
        HIT,
        "rm -r d out",
        "echo a > in",
        mounted=True,
    ),
    Case("outputs hold something else", "cat in > out", HIT, "echo spoilt > out", "echo a > in", mounted=True),
    Case("nothing changed", "cat in > out; echo * > list", HIT, "", "echo a > in; touch list out"),
    Case(
        "a file that nobody looked at",
        "cat in > out",
        HIT,
        "echo b > other; mkdir -p x/y",
        "echo a > in; echo a > other",
    ),
    Case(
        "an executable bit",
        "test -x in && echo yes > out || echo no > out",
        MISS,
        "chmod -x in",
        "echo a > in; chmod +x in",
        ("mode",),
    ),
    Case(
        "an executable bit that was missing",
        "test -x in && echo yes > out || echo no > out",
        MISS,
        "chmod +x in",
        "echo a > in",
        ("refusal",),
    ),
    Case(
        "permissions of others",
        "find . -perm -o+w -name in > out",
        MISS,
        "chmod o+w in; rm out",
        "echo a > in",
        ("mode+keep times",),
    ),
    Case("permissions of a directory", "find d -perm -o+w > out", MISS, "chmod o+w d", "mkdir d", ("state", "mode")),
    Case(
        "permissions of a directory that is stated",
        "python3 -Ic 'import os; print(os.stat(\"d\").st_mode)'",
        MISS,
        "chmod g-x d",
        "mkdir d",
        ("state",),
    ),
    Case(
        "an owner",
        "test -O in && echo mine > out || echo other > out",
        MISS,
        "chown 1 in",
        "echo a > in",
        ("mode", "state"),
    ),
    Case("an owner of many", "find in -user 1 > out", MISS, "chown 1 in", "echo a > in; chown 2 in", ("keep times",)),
    Case("the group of a file", "find in -group 1 > out", MISS, "chgrp 1 in", "echo a > in", ("keep times",)),
    Case(
        "the number of names of a file", "find in -links +1 > out", MISS, "ln in other", "echo a > in", ("keep times",)
    ),
    Case(
        "when a file was changed, to find",
        "find in -newermt 2020-01-01 > out",
        MISS,
        "touch -d 2001-01-01 in",
        "echo a > in",
        ("keep times",),
    ),
    Case(
        "when a file was changed, to tar",
        "tar cf out.tar in",
        MISS,
        "touch -d 2001-01-01 in; rm out.tar",
        "echo a > in",
        ("keep times",),
    ),
    Case(
        "to whom a file belongs, to tar",
        "tar cf out.tar in",
        MISS,
        "chown 2:2 in; rm out.tar",
        "echo a > in; chown 1:1 in",
        ("keep times",),
    ),
    Case(
        "when a file was changed, to ls",
        "ls -l --time-style=full-iso in",
        MISS,
        "touch -d 2001-01-01 in",
        "echo a > in",
        ("keep times",),
    ),
    Case(
        "when a file was changed, to gzip",
        "gzip -k in",
        MISS,
        "touch -d 2001-01-01 in; rm in.gz",
        "echo a > in",
        ("keep times",),
    ),
    Case(
        "when a file was changed, to date",
        "date -r in > out",
        MISS,
        "touch -d 2001-01-01 in",
        "echo a > in",
        ("keep times",),
    ),
    Case(
        "when a file was changed, to cp",
        "cp -p in copy; ls -l --time-style=full-iso copy > out",
        MISS,
        "touch -d 2001-01-01 in; rm copy",
        "echo a > in",
        ("keep times",),
    ),
    Case(
        "two links of one file, to tar",
        "tar cf out.tar a b",
        MISS,
        "ln -f a b; touch -d 2001-01-01 a; rm out.tar",
        "echo x > a; echo x > b; touch -d 2001-01-01 a b",
        ("keep times",),
    ),
    Case("a sparse size", "du -B1 --apparent-size in > out", MISS, "truncate -s 5000 in", "echo a > in", ("state",)),
    # --- which is newer ---
    Case(
        "one file becomes newer than another",
        "test a -nt b && echo a > out || echo b > out",
        MISS,
        "touch -d 2003-01-01 b",
        "touch -d 2001-01-01 b; touch -d 2002-01-01 a",
        ("orders",),
        mounted=True,
    ),
    Case(
        "files keep their order",
        "test a -nt b && echo a > out || echo b > out",
        HIT,
        "touch -d 2003-01-01 b; touch -d 2004-01-01 a",
        "touch -d 2001-01-01 b; touch -d 2002-01-01 a",
    ),
    Case(
        "two files become equally old",
        "test a -nt b && echo a > out || echo b > out",
        MISS,
        "touch -d 2002-01-01 b",
        "touch -d 2001-01-01 b; touch -d 2002-01-01 a",
        ("orders",),
    ),
    Case(
        "make finds an object that became stale",
        "make -s; cat o > out",
        MISS,
        "echo b > s; touch -d 2003-01-01 s",
        "printf 'o: s\\n\\tcp s o; echo made\\n' > Makefile; echo a > s; cp s o; touch "
        "-d 2001-01-01 s; touch -d 2002-01-01 o",
    ),
    Case(
        "make finds a stale object that is only older now",
        "make -s",
        MISS,
        "touch -d 2003-01-01 s",
        "printf 'o: s\\n\\tcp s o; echo made\\n' > Makefile; echo a > s; echo old > o; "
        "touch -d 2001-01-01 s; touch -d 2002-01-01 o",
        ("orders",),
    ),
    Case(
        "make finds an object that is gone",
        "make -s; cat o > out",
        MISS,
        "rm o",
        "printf 'o: s\\n\\tcp s o; echo made\\n' > Makefile; echo a > s; echo old > o; "
        "touch -d 2001-01-01 s; touch -d 2002-01-01 o",
    ),
    Case("make after a replay has nothing to do", "test -e o || { cp s t; cp t o; }", HIT, "rm t o", "echo a > s"),
    Case(
        "a stale .pyc of the same size",
        ["python3", "main.py"],
        MISS,
        "echo 'V = 2' > mod.py; touch -d 2001-01-01 mod.py",
        "echo 'import mod; print(mod.V)' > main.py; echo 'V = 1' > mod.py; touch -d 2001-01-01 mod.py;"
        "python3 -c 'import mod'",
    ),
    Case(
        "a .pyc that is not valid any more",
        ["python3", "main.py"],
        MISS,
        "touch -d 2002-01-01 mod.py",
        "echo 'import mod; print(mod.V)' > main.py; echo 'V = 1' > mod.py; touch -d 2001-01-01 mod.py;"
        "python3 -c 'import mod'; echo 'V = 2' > mod.py; touch -d 2001-01-01 mod.py",
        ("pyc",),
    ),
)
