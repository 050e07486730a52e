"""Projects that are compiled."""

from __future__ import annotations

from tests.workloads.workload import Change, Workload

_TRACKED = "git init -q; git add -A; git -c user.name=a -c user.email=a@b commit -qm all"

_OTHER_COMPILER = (
    "printf '#!/bin/sh\\nexec /usr/bin/gcc -DEXTRA=1 -fno-builtin \"$@\"\\n' > $TOOLS/gcc; chmod +x $TOOLS/gcc"
)

_OPTIONS = "--without-debug --without-progs --without-tests --without-cxx-binding --without-ada --without-manpages"

NCURSES = Workload(
    "c-configure",
    "ncurses: `./configure && make`",
    arrange=f"cp -a $NCURSES/. .; {_TRACKED}",
    sources=("ncurses",),
    programs=("gcc", "make"),
    command=f"./configure -q {_OPTIONS} && make -s -j2",
    changes=(
        Change("source", "sed -i 's/^beep(/ beep(/' ncurses/base/lib_beep.c", built=True),
        Change("header", "echo '#define EXTRA 1' >> menu/menu.priv.h", built=True),
        Change("tool", f"{_OTHER_COMPILER}; rm objects/lib_beep.o", built=True),
        Change("variable", "rm objects/lib_beep.o", {"CPATH": "form"}, built=True),
        Change("configuration", "echo 'CFLAGS += -DEXTRA' >> form/Makefile; rm objects/frm_cursor.o", built=True),
    ),
    finished={"make -s": r"\A\Z"},
    again="make -s -j2",
    varies=("config.log", "lib/*.a"),
    says_more=True,
    fewest_made=200,
    bound="config.log, config.status and the makefiles hold its absolute path",
)

CMAKE = Workload(
    "cmake-ninja",
    "json-c with CMake and ninja",
    arrange=f"cp -a $JSON_C/. .; {_TRACKED}",
    sources=("json_c",),
    programs=("cmake", "ninja", "gcc"),
    command="cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release > configured && ninja -C build --quiet",
    changes=(
        Change("tool", _OTHER_COMPILER.replace("$TOOLS/gcc", "$TOOLS/cc")),
        Change("variable", environment={"CFLAGS": "-O1"}),
        Change("configuration", "echo 'add_definitions(-DEXTRA)' >> CMakeLists.txt"),
        Change("source", "echo 'int extra;' >> json_util.c", built=True),
        Change("header", "echo '#define EXTRA 1' >> json_object.h", built=True),
        Change(
            "a source more",
            "echo 'int more;' > more.c; sed -i 's/json_util.c/json_util.c more.c/' CMakeLists.txt",
            built=True,
        ),
    ),
    finished={"ninja -C build": "ninja: no work to do"},
    again="ninja -C build --quiet",
    restamped=("build/.ninja_log", "build/.ninja_deps"),
    varies=(
        "build/.ninja_log",
        "build/.ninja_deps",
        "build/CMakeFiles/CMakeOutput.log",
        "build/CMakeFiles/CMakeError.log",
    ),
    says_more=True,
    fewest_made=40,
    bound="CMake writes absolute paths",
)

_CRATE = """\
mkdir -p src .cargo
cat > Cargo.toml <<'END'
[package]
name = "workload"
version = "0.1.0"
edition = "2021"
build = "build.rs"

[dependencies]
clap = { version = "4.0", features = ["derive"] }
serde = { version = "1.0", features = ["derive"] }
serde_json = "1.0"
regex = "1.7"
rand = "0.8"
END
cat > .cargo/config.toml <<'END'
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
[net]
offline = true
END
cat > build.rs <<'END'
fn main() {
    println!("cargo:rerun-if-changed=greeting.txt");
    println!("cargo:rustc-env=GREETING={}", std::fs::read_to_string("greeting.txt").unwrap().trim());
}
END
echo hello > greeting.txt
cat > src/lib.rs <<'END'
pub fn double(number: u64) -> u64 { number * 2 }
END
cat > src/main.rs <<'END'
use clap::Parser;
use rand::{Rng, SeedableRng};
#[derive(Parser, serde::Serialize)]
struct Given { #[arg(default_value = "a1b22")] text: String }
fn main() {
    let given = Given::parse();
    let digits = regex::Regex::new("[0-9]+").unwrap().find_iter(&given.text).count() as u64;
    let drawn: u8 = rand::rngs::StdRng::seed_from_u64(1).gen();
    println!("{} {} {} {}", env!("GREETING"), serde_json::to_string(&given).unwrap(), workload::double(digits), drawn);
}
END
printf 'target\\n' > .gitignore
cargo generate-lockfile -q
"""

CARGO = Workload(
    "rust-cargo",
    "a crate with 40 dependencies and a build script, built by cargo",
    arrange=f"{_CRATE}{_TRACKED}",
    programs=("cargo", "git"),
    command="cargo build -q",
    changes=(
        Change("source", "echo 'pub fn more() {}' >> src/lib.rs", built=True),
        Change("what the build script reads", "echo hi > greeting.txt", built=True),
        Change("configuration", "printf '[profile.dev]\\nopt-level = 1\\n' >> Cargo.toml", built=True),
        Change("variable", environment={"RUSTFLAGS": "-Cdebuginfo=0"}, built=True),
        Change(
            "tool",
            "printf '#!/bin/sh\\nexec ld \"$@\"\\n' > $TOOLS/extra-ld; printf '[target.x86_64-unknown-linux-gnu]\\n"
            'rustflags = ["-Clink-arg=-Wl,--build-id=none"]\\n\' >> .cargo/config.toml',
            built=True,
        ),
    ),
    finished={"cargo build --message-format short": r"\A\s*Finished[^\n]*\n\Z", "target/debug/workload": "hello"},
    again="cargo build -q",
    unstored_again="and then replaced it",
    varies=(
        "target/debug/.fingerprint/*",
        "target/debug/incremental/*",
        "target/.rustc_info.json",
        "target/debug/libworkload.rlib",
        "target/debug/deps/libworkload-*.rlib",
    ),
    fewest_made=200,
    bound="cargo writes absolute paths, and derives names from them",
)

_MODULE = """\
mkdir -p third_party words
cp -a /usr/share/gocode/src/github.com/spf13/cobra /usr/share/gocode/src/github.com/spf13/pflag third_party
rm -r third_party/cobra/doc third_party/*/*_test.go third_party/*/go.*
printf 'module github.com/spf13/cobra\\n\\ngo 1.19\\n' > third_party/cobra/go.mod
printf 'module github.com/spf13/pflag\\n\\ngo 1.19\\n' > third_party/pflag/go.mod
rm third_party/cobra/command_win.go
cat > go.mod <<'END'
module example.org/workload

go 1.19

require (
	github.com/spf13/cobra v1.0.0
	github.com/spf13/pflag v1.0.5
)

replace (
	github.com/spf13/cobra => ./third_party/cobra
	github.com/spf13/pflag => ./third_party/pflag
)
END
cat > words/words.go <<'END'
package words

import "strings"

func Loud(text string) string { return strings.ToUpper(text) }
END
cat > words/words_test.go <<'END'
package words

import "testing"

func TestLoud(t *testing.T) {
	if Loud("a") != "A" {
		t.Fatal("not loud")
	}
}
END
cat > main.go <<'END'
package main

import (
	_ "embed"
	"fmt"

	"example.org/workload/words"
	"github.com/spf13/cobra"
)

//go:embed greeting.txt
var greeting string

func main() {
	command := &cobra.Command{Use: "workload", Run: func(*cobra.Command, []string) { fmt.Print(words.Loud(greeting)) }}
	if err := command.Execute(); err != nil {
		panic(err)
	}
}
END
echo hello > greeting.txt
printf 'bin\\n' > .gitignore
"""

GO = Workload(
    "go-build",
    "a Go module with dependencies, built by go from an empty cache",
    arrange=f"{_MODULE}{_TRACKED}",
    programs=("go",),
    command="rm -rf bin; go build -o bin/workload . && bin/workload",
    changes=(
        Change("source", "echo '// more' >> words/words.go; echo 'func More() {}' >> words/words.go"),
        Change("what is embedded", "echo hi > greeting.txt"),
        Change("configuration", "sed -i 's/^go 1.19/go 1.18/' go.mod"),
        Change("variable", environment={"GOFLAGS": "-trimpath"}),
        Change(
            "tool",
            "printf '#!/bin/sh\\nexec /usr/bin/go \"$@\" -ldflags=-s\\n' > $TOOLS/go; chmod +x $TOOLS/go;"
            "sed -i 's/^exec.*/shift; exec \\/usr\\/bin\\/go build -ldflags=-s \"$@\"/' $TOOLS/go",
        ),
    ),
    bound="debug information holds absolute paths",
    environment={"GOFLAGS": "-buildvcs=false", "GOPROXY": "off", "GOTOOLCHAIN": "local"},
)

SMALL_MAKE = Workload(
    "small-make",
    "a makefile with three sources and a header",
    arrange="""\
printf '#define VALUE 1\\n' > value.h
for n in a b c; do printf '#include "value.h"\\nint %s(void) { return VALUE; }\\n' $n > $n.c; done
printf 'int a(void); int b(void); int c(void);\\nint main(void) { return a() + b() + c() - 3 * EXPECTED; }\\n' > main.c
cat > Makefile <<'END'
CC = gcc
OBJECTS = a.o b.o c.o main.o
program: $(OBJECTS)
	$(CC) -o $@ $(OBJECTS)
%.o: %.c value.h
	$(CC) $(CFLAGS) -DEXPECTED=1 -c -o $@ $<
END
"""
    + _TRACKED,
    programs=("gcc", "make"),
    command="make",
    changes=(
        Change("source", "echo 'int more;' >> b.c"),
        Change("header", "echo '#define MORE 1' >> value.h", built=True),
        Change("tool", "printf '#!/bin/sh\\nexec /usr/bin/gcc -g \"$@\"\\n' > $TOOLS/gcc; chmod +x $TOOLS/gcc"),
        Change("configuration", "sed -i s/EXPECTED=1/EXPECTED=2/ Makefile"),
        Change("variable", environment={"CFLAGS": "-O2"}),
    ),
    finished={"make": "up to date", "./program": ""},
    again="make",
    small=True,
)

COMPILED = (SMALL_MAKE, NCURSES, CMAKE, CARGO, GO)
