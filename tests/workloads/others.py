"""Documents, tests, figures, archives, pictures and sounds."""

from __future__ import annotations

from tests.workloads.workload import Change, Workload

_TRACKED = "git init -q; git add -A; git -c user.name=a -c user.email=a@b commit -qm all"

TYPESCRIPT = Workload(
    "typescript",
    "tsc with a node_modules of 7,000 files",
    arrange="""\
cp -a $NODE/. .
mkdir src
cat > tsconfig.json <<'END'
{"compilerOptions": {"outDir": "out", "target": "es2020", "module": "commonjs", "strict": true, "declaration": true,
 "sourceMap": true, "incremental": true, "tsBuildInfoFile": "out/info.tsbuildinfo"}, "include": ["src"]}
END
cat > src/days.ts <<'END'
import { addDays, format } from "date-fns";
export function later(days: number): string { return format(addDays(new Date(0), days), "yyyy-MM-dd"); }
END
cat > src/main.ts <<'END'
import { from, map } from "rxjs";
import * as path from "node:path";
import { later } from "./days";
from([1, 2, 3]).pipe(map(later)).subscribe(day => console.log(path.join("/", day)));
END
printf 'node_modules\\nout\\n' > .gitignore
"""
    + _TRACKED,
    programs=("node", "npm"),
    sources=("node",),
    command="node node_modules/typescript/bin/tsc -p .",
    changes=(
        Change("source", "echo 'export const more = 1;' >> src/days.ts"),
        Change(
            "dependency",
            "echo 'export declare const more: number;' >> node_modules/rxjs/dist/types/index.d.ts; "
            "echo 'export { more } from \"rxjs\";' >> src/days.ts",
        ),
        Change(
            "a dependency that shadows",
            "mkdir -p src/node_modules/date-fns; "
            "echo 'export declare function addDays(d: Date, n: number): Date; "
            "export declare function format(d: Date, f: string): string;' > src/node_modules/date-fns/index.d.ts",
        ),
        Change("configuration", "sed -i s/es2020/es2015/ tsconfig.json"),
        Change(
            "tool",
            'sed -i \'s/^"use strict";/"use strict";\\nexports.emptied = 1;/\' node_modules/typescript/lib/tsc.js',
        ),
        Change("variable", environment={"NODE_OPTIONS": "--stack-size=2000"}),
        Change("source again", "echo 'export const more = 1;' >> src/days.ts", built=True),
    ),
    again="node node_modules/typescript/bin/tsc -p .",
)

SPHINX = Workload(
    "sphinx",
    "a manual of 40 pages made by Sphinx",
    arrange="""\
mkdir source
cat > source/conf.py <<'END'
import sys
sys.path.insert(0, ".")
project = "Workload"
extensions = ["sphinx.ext.autodoc"]
END
cat > sums.py <<'END'
'''Sums.'''
def add(a, b):
    '''Add `a` to `b`.'''
    return a + b
END
{ printf 'Workload\\n========\\n\\n.. automodule:: sums\\n   :members:\\n\\n.. toctree::\\n\\n'
  for n in $(seq 40); do echo "   page$n"; done; } > source/index.rst
for n in $(seq 40); do printf 'Page %s\\n=======\\n\\nSee :doc:`index`.  Term *%s*.\\n' $n $n > source/page$n.rst; done
printf 'build\\n__pycache__\\n' > .gitignore
"""
    + _TRACKED,
    sources=("python",),
    command="$PYTHON/bin/sphinx-build -q -b html source build",
    changes=(
        Change("page", "echo More. >> source/page7.rst", built=True),
        Change("source that is documented", "sed -i 's/Add/Sum/' sums.py"),
        Change("configuration", "echo 'html_title = \"Other\"' >> source/conf.py", built=True),
        Change("a page more", "printf 'P\\n=\\n' > source/more.rst; echo '   more' >> source/index.rst", built=True),
        Change("variable", environment={"SOURCE_DATE_EPOCH": "86400"}),
        Change(
            "tool",
            "mkdir -p theme; printf '[theme]\\ninherit = alabaster\\n' > theme/theme.conf; "
            'printf \'html_theme = "theme"\\nhtml_theme_path = [".."]\\n\' >> source/conf.py',
        ),
    ),
    again="$PYTHON/bin/sphinx-build -q -b html source build",
    varies=("build/.doctrees/*", "*.pyc"),
    bound="doctrees and compiled modules hold paths",
    fewest_made=100,
)

PYTEST = Workload(
    "pytest",
    "a session of pytest with its caches",
    arrange="""\
mkdir sums tests
printf 'def add(a, b):\\n    return a + b\\n' > sums/__init__.py
cat > tests/test_sums.py <<'END'
import json, pathlib, sums
def test_add():
    cases = json.loads((pathlib.Path(__file__).parent / "cases.json").read_text())
    assert all(sums.add(a, b) == c for a, b, c in cases)
END
cat > tests/conftest.py <<'END'
import pytest
@pytest.fixture
def one(tmp_path):
    (tmp_path / "x").write_text("1")
    return 1
END
printf 'def test_one(one):\\n    assert one == 1\\n' > tests/test_one.py
echo '[[1, 2, 3], [4, 5, 9]]' > tests/cases.json
printf '[pytest]\\npythonpath = .\\n' > pytest.ini
printf '.pytest_cache\\n__pycache__\\n' > .gitignore
"""
    + _TRACKED,
    sources=("python",),
    command="$PYTHON/bin/python -m pytest -q --durations 0 -p no:randomly",
    changes=(
        Change("source", "sed -i 's/a + b/b + a/' sums/__init__.py"),
        Change("figures", "echo '[[1, 2, 3]]' > tests/cases.json"),
        Change("figures of the same length", "echo '[[1, 2, 3], [5, 4, 9]]' > tests/cases.json"),
        Change("configuration", "echo 'addopts = -v' >> pytest.ini"),
        Change("a test more", "printf 'def test_two():\\n    pass\\n' > tests/test_two.py"),
        Change("variable", environment={"PYTHONDONTWRITEBYTECODE": "1"}),
        Change("source again", "sed -i 's/a + b/b + a/' sums/__init__.py", built=True),
    ),
    again="$PYTHON/bin/python -m pytest -q",
    unstored_again="and then replaced it",
    varies=("*.pyc", ".pytest_cache/*"),
    says_more=True,
    bound="compiled modules hold paths",
)

NUMPY = Workload(
    "numpy",
    "a script with numpy: reads figures, writes results",
    arrange="""\
cat > script.py <<'END'
import os, sys
import numpy as np
figures = np.loadtxt("figures.csv", delimiter=",")
scale = float(os.environ.get("SCALE", "1"))
u, s, v = np.linalg.svd(figures * scale)
np.save("s.npy", s)
np.savetxt("s.csv", s)
np.savez("all.npz", u=u, v=v)
print("largest", s[0])
print("done", file=sys.stderr)
END
seq 400 | tr '\\n' ',' | sed 's/,$//' | tr ',' '\\n' | paste -d, - - - - > figures.csv
"""
    + _TRACKED,
    sources=("python",),
    command="$PYTHON/bin/python script.py",
    changes=(
        Change("figures", "sed -i '1s/1/7/' figures.csv"),
        Change("source", "sed -i s/largest/most/ script.py"),
        Change(
            "a module that shadows",
            "printf 'raise SystemExit(print(\"shadowed\"))\\n' > csv.py; "
            "printf 'from sys import *\\nimport builtins\\nprint(\"shadow\")\\n' > secrets.py",
        ),
        Change("variable", environment={"SCALE": "2"}),
        Change("tool", environment={"PYTHONHASHSEED": "1"}),
    ),
    bound="compressed",
)

TAR = Workload(
    "tar",
    "tar and gzip of 300 files",
    arrange="""\
mkdir -p tree/deep
for n in $(seq 300); do echo $n > tree/deep/$n; done
ln -s deep/1 tree/link; chmod 700 tree/deep/2; ln tree/deep/3 tree/hard
""",
    programs=("tar", "gzip"),
    command="tar cf tree.tar tree; gzip -kf tree.tar; tar cf - tree | wc -c; mkdir -p out; tar xf tree.tar -C out",
    changes=(
        Change("content", "echo other > tree/deep/9"),
        Change("times", "touch -d 2001-01-01 tree/deep/9"),
        Change("times of a directory", "touch -d 2001-01-01 tree/deep"),
        Change("mode", "chmod 600 tree/deep/9"),
        Change("link", "ln -sfn deep/2 tree/link"),
        Change("a second name", "ln tree/deep/10 ../tree.more; rm ../tree.more; ln tree/deep/10 tree/also"),
        Change("a file more", "echo more > tree/more"),
        Change("variable", environment={"TAR_OPTIONS": "--sort=name"}),
        Change("tool", "printf '#!/bin/sh\\nexec /usr/bin/gzip -9 \"$@\"\\n' > $TOOLS/gzip; chmod +x $TOOLS/gzip"),
    ),
    varies=("tree.tar.gz",),
    bound="compressed",
    fewest_made=300,
)

PICTURE = Workload(
    "picture-and-sound",
    "ImageMagick scales and converts a picture, sox a sound",
    arrange="""\
/usr/bin/convert -size 320x240 gradient:red-blue plain.ppm
sox -n -r 8000 tone.wav synth 1 sine 440
""",
    programs=("sox", "/usr/bin/convert"),
    command="""\
/usr/bin/convert plain.ppm -resize 50% small.png
sox tone.wav -r 4000 low.flac
sox tone.wav loud.ogg gain 3
""",
    changes=(
        Change("picture", "/usr/bin/convert -size 320x240 gradient:green-blue plain.ppm"),
        Change("the picture's time", "touch -d 2001-01-01 plain.ppm"),
        Change("sound", "sox -n -r 8000 tone.wav synth 1 sine 220"),
        Change(
            "configuration",
            'mkdir -p $HOME/.config/ImageMagick; printf \'<policymap><policy domain="coder" rights="none" '
            'pattern="XYZ"/></policymap>\' > $HOME/.config/ImageMagick/policy.xml',
        ),
        Change("variable", environment={"SOX_OPTS": "-V1 -D"}),
    ),
    varies=("*.png", "*.ogg"),
)

OTHERS = (TYPESCRIPT, SPHINX, PYTEST, NUMPY, TAR, PICTURE)
