"""Images that stand in for those of registries, made of what is installed on this Debian: `make compose-test`.

An image of packages has the files of some packages and of all that these depend on, as `dpkg` lists them. So the test
needs no registry, and the Dockerfile and the compose file run as they are.

Usage: stand_ins.py NAME [PATH...]: writes the tar archive of an image's files to standard output, for `docker import`.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib

# What every image has: the folders that are links, and the users.
LINKS = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64") if os.path.islink(f"/{name}")}
USERS = "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"
# Nothing reads these, and they are half of the bytes.
LEFT_OUT = re.compile(
    r"/usr/share/(doc|man|locale|info|icons|i18n|javascript|perl|prometheus)/|/perl/|/perl-base/|/(cc1plus|lto1|promtool)$|"
    # PostgreSQL's just-in-time compiler.
    r"llvmjit|/libLLVM|/libz3|/lib(a|l|t|ub)san|lto-dump|\.a$"
)
NOT_COMPILED = re.compile(r"/(tests|benches|examples|docs)/")
KEPT = re.compile(r"/(libc_nonshared|libgcc|libgcc_eh|libc|libm|libmvec|libpthread|libdl|librt|libutil)\.a$")

# As PostgreSQL's own image does: the server listens to the network only when the database is there.
POSTGRES = """#!/bin/sh
set -e
export PGDATA=/var/lib/postgresql/18/docker PATH="$(echo /usr/lib/postgresql/*/bin):$PATH"
mkdir -p "$PGDATA" /var/run/postgresql && chown 999:999 "$PGDATA" /var/run/postgresql && chmod 700 "$PGDATA"
as() { setpriv --reuid 999 --regid 999 --clear-groups "$@"; }
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/password
  as initdb --no-sync --encoding=UTF8 --locale=C --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  as pg_ctl --wait --options="-c listen_addresses=" start
  as createdb --username="$POSTGRES_USER" "$POSTGRES_DB" || [ "$POSTGRES_USER" = "$POSTGRES_DB" ]
  as pg_ctl --wait stop
fi
# What is killed is the server, not the machine: nothing is lost, and a slow disk makes nothing late.
exec setpriv --reuid 999 --regid 999 --clear-groups postgres -c "listen_addresses=*" -c fsync=off
"""


def packages():
    """Every installed package, with the alternatives of each thing that it needs."""
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${binary:Package}\t${Pre-Depends}, ${Depends}\t${Provides}\n"],
        check=True, capture_output=True, text=True,
    ).stdout
    needs, provided = {}, {}
    name_of = lambda text: re.split(r"[ (:]", text.strip(), maxsplit=1)[0]
    for line in answer.splitlines():
        name, wanted, provides = line.split("\t")
        name = name_of(name)
        needs[name] = [[name_of(one) for one in group.split("|")] for group in wanted.split(",") if group.strip()]
        for other in filter(None, map(name_of, provides.split(","))):
            provided.setdefault(other, name)
    return needs, provided


def closure(names):
    """The installed packages that these need, themselves included."""
    needs, provided = packages()
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        name = name if name in needs else provided.get(name)
        # What maintainers' scripts need alone.
        if name is None or name in found or name in ("debconf", "perl-base", "perl", "dpkg", "systemd", "adduser"):
            continue
        found.add(name)
        for group in needs[name]:
            waiting.extend([one for one in group if one in needs or one in provided][:1])
    return sorted(found)


class Image:
    """A tar archive of files of this machine, each once."""

    def __init__(self, out):
        self.tar = tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT)
        self.names = set()
        for name, target in LINKS.items():
            self.link(name, target)
        self.text("etc/passwd", USERS)
        self.text("etc/group", "root:x:0:\npostgres:x:999:\n")
        self.folder("tmp", 0o1777)

    def folder(self, name, mode=0o755):
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self.tar.addfile(info)

    def link(self, name, target):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self.tar.addfile(info)

    def text(self, name, text, mode=0o644):
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text.encode()), mode
        self.tar.addfile(info, io.BytesIO(text.encode()))

    def add(self, path, name=None):
        """A file or a link, below the folder that its own really is."""
        name = name or os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if name in self.names or not os.path.lexists(path) or name.lstrip("/") in LINKS:
            return
        self.names.add(name)
        info = self.tar.gettarinfo(path, name.lstrip("/"))
        # Layers keep the parts of a second for some files alone. Cargo compares times, and would build again what was built
        # within one second with what it depends on.
        info.mtime = int(info.mtime)
        # No hard link: its other name may be one that is left out.
        if info.islnk():
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", os.path.getsize(path)
        if info.isreg():
            with open(path, "rb") as file:
                self.tar.addfile(info, file)
        else:
            self.tar.addfile(info)
            # Links to what postinst has made, such as alternatives.
            if info.issym() and os.path.realpath(path) != name and os.path.isfile(path):
                self.add(os.path.join(os.path.dirname(path), os.readlink(path)))

    def tree(self, path, name=None, leave_out=None):
        for folder, _, files in os.walk(path):
            for file in files:
                whole = os.path.join(folder, file)
                inside = os.path.join(name or path, os.path.relpath(whole, path))
                if not (leave_out and leave_out.search(inside)):
                    self.add(whole, inside)

    def packages(self, *names):
        listed = subprocess.run(["dpkg", "-L", *closure(names)], check=True, capture_output=True, text=True).stdout
        for path in listed.splitlines():
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            if path.startswith("/") and not is_folder and (KEPT.search(path) or not LEFT_OUT.search(path)):
                self.add(path)


def postgres(image):
    image.packages(*[name for name in packages()[0] if re.fullmatch(r"postgresql-\d+", name)], "dash", "coreutils", "util-linux")
    image.text("usr/local/bin/entrypoint", POSTGRES, 0o755)
    image.text("usr/local/bin/pg_isready", '#!/bin/sh\nexec /usr/lib/postgresql/*/bin/pg_isready "$@"\n', 0o755)


def prometheus(image):
    image.packages("prometheus")


def distroless(image):
    image.packages("libc6", "libgcc-s1", "netbase", "tzdata")
    image.add("/etc/ssl/certs/ca-certificates.crt")


def rust(image, toolchain, cargo_home, checkout, *units):
    """The compiler, the registry, and below /src what Cargo has built of it already: `units` are the ends of their names."""
    image.packages("gcc", "libc6-dev", "dash", "coreutils", "findutils")
    image.add("/usr/bin/cc")
    image.tree(toolchain, leave_out=re.compile("/share/|/rustlib/src/|rust-analyzer|clippy|rustdoc|rustfmt|/libexec/|/etc/"))
    with open(os.path.join(checkout, "Cargo.lock"), "rb") as file:
        packages = [one for one in tomllib.load(file)["package"] if not one["name"].startswith("windows")]
        locked = {f"{one['name']}-{one['version']}" for one in packages}
    registry = os.path.join(cargo_home, "registry")
    image.tree(os.path.join(registry, "index"))
    for index in os.scandir(os.path.join(registry, "cache")):
        for crate in locked:
            image.add(os.path.join(index.path, f"{crate}.crate"))
            image.tree(os.path.join(registry, "src", index.name, crate), leave_out=NOT_COMPILED)
    ends = tuple(f"-{unit}" for unit in units)
    for part in (".fingerprint", "build", "deps"):
        for entry in os.scandir(os.path.join(checkout, "target/debug", part)):
            name = f"/src/target/debug/{part}/{entry.name}"
            if entry.name.split(".")[0].endswith(ends):
                image.tree(entry.path, name) if entry.is_dir() else image.add(entry.path, name)
    # That of the checkout is not in the image; see `BUILD` of the engine.
    image.text("src/examples/rust/update.rs", "fn main() {}\n")


if __name__ == "__main__":
    image = Image(sys.stdout.buffer)
    globals()[sys.argv[1]](image, *sys.argv[2:])
    image.tar.close()
