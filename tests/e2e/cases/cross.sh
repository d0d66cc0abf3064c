# SPDX-License-Identifier: BSD-3-Clause
# what: rename, link and other calls whose paths cross between the remote tree and the host, both ways, in both arguments
# exclude: out
# filter: s,/tmp/sc-e2e-cross\.[A-Za-z0-9]+,LOCAL,g
set -u
L=$(mktemp -d /tmp/sc-e2e-cross.XXXXXX); trap 'rm -rf "$L"' EXIT
cd "$D" || exit 1
mkdir d; ln -s "$L" out; ln -s "$D/d" "$L/in"; ln -s "$D" "$L/top"
python3 - "$L" <<'EOT'
import errno, os, sys
L, D = sys.argv[1], os.getcwd()

def attempt(what, f):
    try:
        print(what, f(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)

def put(p):
    with open(p, "w") as f:
        f.write(p.replace(L, "LOCAL"))

put("out/a"); put("d/r"); put(L + "/b")
# both ends local, though reached through the remote tree
attempt("rename out out", lambda: (os.rename("out/a", "out/a2"), sorted(os.listdir(L))))
attempt("rename out abs", lambda: (os.rename("out/a2", L + "/a3"), sorted(os.listdir(L))))
attempt("rename abs out", lambda: (os.rename(L + "/a3", D + "/out/a4"), sorted(os.listdir(L))))
attempt("link out out", lambda: (os.link("out/a4", "out/a5"), os.stat(L + "/a5").st_nlink))
attempt("link abs out", lambda: (os.link(L + "/a4", "out/a6"), os.stat("out/a6").st_nlink))
attempt("rename missing", lambda: os.rename("out/none", "out/x"))
attempt("rename to missing", lambda: os.rename("out/a4", "out/none/x"))
attempt("link to existing", lambda: os.link("out/a4", "out/a5"))
# both ends remote, though reached through the host
attempt("rename in in", lambda: (os.rename(L + "/in/r", L + "/in/r2"), sorted(os.listdir("d"))))
attempt("rename in rel", lambda: (os.rename(L + "/in/r2", "d/r3"), sorted(os.listdir("d"))))
attempt("rename rel in", lambda: (os.rename("d/r3", L + "/top/d/r4"), sorted(os.listdir("d"))))
attempt("link in in", lambda: (os.link(L + "/in/r4", L + "/in/r5"), os.stat("d/r5").st_nlink))
attempt("link top rel", lambda: (os.link(L + "/top/d/r4", "r6"), os.stat("r6").st_nlink))
attempt("exchange", lambda: (os.rename(L + "/top/r6", L + "/in/r6"), sorted(os.listdir("d"))))
# through both and back
attempt("there and back", lambda: open("out/in/r4").read())
attempt("and again", lambda: open("out/top/out/in/../out/top/d/r4").read())
attempt("rename there and back", lambda: (os.rename("out/in/r6", "out/top/out/in/r7"), sorted(os.listdir("d"))))
attempt("mkdir", lambda: (os.mkdir("out/in/sub"), os.mkdir("out/ldir"), os.mkdir(L + "/top/rdir"), sorted(os.listdir("d")), sorted(os.listdir())))
attempt("rmdir", lambda: (os.rmdir("out/in/sub"), os.rmdir("out/ldir"), os.rmdir(L + "/top/rdir"), sorted(os.listdir("d")), sorted(os.listdir())))
attempt("symlink", lambda: (os.symlink("t", "out/s"), os.symlink("t", L + "/in/s"), os.readlink(L + "/s"), os.readlink("d/s")))
attempt("unlink", lambda: (os.unlink("out/s"), os.unlink(L + "/in/s"), os.listdir("d").count("s")))
attempt("chmod", lambda: (os.chmod("out/b", 0o640), os.chmod(L + "/in/r4", 0o604), oct(os.stat(L + "/b").st_mode), oct(os.stat("d/r4").st_mode)))
attempt("truncate", lambda: (os.truncate("out/b", 3), os.truncate(L + "/in/r4", 3), os.stat(L + "/b").st_size, os.stat("d/r4").st_size))
attempt("utime", lambda: (os.utime("out/b", (1, 2)), os.utime(L + "/in/r4", (3, 4)), os.stat(L + "/b").st_mtime, os.stat("d/r4").st_mtime))
attempt("setxattr", lambda: (os.setxattr("out/b", "user.a", b"l"), os.setxattr(L + "/in/r4", "user.a", b"r"), os.getxattr(L + "/b", "user.a"),
                             os.getxattr("d/r4", "user.a")))
attempt("statvfs", lambda: (os.statvfs("out").f_namemax, os.statvfs(L + "/in").f_namemax))
attempt("listdir", lambda: (sorted(os.listdir("out")), sorted(os.listdir(L + "/in"))))
l, r = os.open(L, os.O_RDONLY), os.open("d", os.O_RDONLY)
attempt("dirfd", lambda: (os.rename("a4", "a7", src_dir_fd=l, dst_dir_fd=l), os.rename("r4", "r8", src_dir_fd=r, dst_dir_fd=r)))
attempt("dirfd cross", lambda: (os.stat("in/r8", dir_fd=l).st_size, os.stat("../out/a7", dir_fd=r).st_size))
attempt("dirfd cross rename", lambda: (os.rename("in/r8", "in/r9", src_dir_fd=l, dst_dir_fd=l), os.rename("../out/a7", "../out/a8", src_dir_fd=r, dst_dir_fd=r)))
attempt("dirfd absolute", lambda: (os.rename(D + "/d/r9", "r10", src_dir_fd=l, dst_dir_fd=r), sorted(os.listdir(r))))
attempt("dots", lambda: os.stat("d/../out/../" + os.path.basename(L) + "/in/r10").st_size)
os.chdir("out/in")
attempt("cwd", lambda: (os.getcwd() == D + "/d", os.listdir("..").count("d")))
os.chdir("..")
os.chdir("out")
attempt("cwd", lambda: (os.getcwd() == L, sorted(os.listdir("in")), open("in/r10").read()))
os.chdir("top/d")
attempt("cwd", lambda: (os.getcwd() == D + "/d", os.path.realpath("../out") == L))
EOT
(cd out && pwd -P && cat in/r10 && echo x > in/new && cat in/new); (cd out/in && pwd -P && ls); ls -R "$L/in/"; find -L . -maxdepth 3 -name 'r*' | sort
mv out/b d/moved && cat d/moved && mv d/moved out/back && cat "$L/back"; cp -a d out/copy && diff -r d out/copy && cp -a out/copy d/again && diff -r out/copy d/again && echo same
rm -r "$L/in/again"; ls d; readlink -f out/in/r10; realpath out/../d
