# SPDX-License-Identifier: BSD-3-Clause
# what: git init, add, commit, branch, merge, fsck, gc, clone on a tree of 2,000 files
# needs: git
# timeout: 150
# exclude: */.git/index */.git/FETCH_HEAD */.git/objects/info/commit-graph
set -u
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@localhost
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1 HOME="$D"
cd "$D" || exit 1
git init -q -b main r; cd r
git config core.pager cat; git config pack.threads 1; git config gc.auto 0
python3 - <<'EOT'
import os
for i in range(2000):
    d = "d%d/e%d" % (i % 20, i % 7)
    os.makedirs(d, exist_ok=True)
    with open("%s/f%d" % (d, i), "w") as f:
        f.write("file %d\n" % i * (1 + i % 50))
EOT
git add . && git commit -qm one && git rev-parse HEAD
git status --short | wc -l; git checkout -qb b; for i in 1 2 3 4 5; do echo change >> "d$i/e$((i % 7))/f$i"; done
git commit -qam two; git checkout -q main; git rm -q d0/e0/f0; echo new > new; git add new; git commit -qm three
git merge -q -m merged b && git rev-parse HEAD; git log --oneline --stat | tail -n 20; git diff HEAD~1 --stat | tail -n 1
git fsck --full --no-progress; git gc -q --aggressive; git fsck --full --no-progress; git count-objects -v | grep -v size
echo dirt > dirt; git stash -qu; git stash list; git stash pop -q; git status --short; git clean -fdq
git clone -q . ../c; git -C ../c fsck --no-progress; git -C ../c log -1 --format=%H; git grep -c 'file 1999' | head -n 2
git worktree add -q ../w b; git -C ../w rev-parse HEAD; git worktree remove ../w; git tag v1; git describe
git archive HEAD | sha256sum; git bundle create -q ../b.bundle main; git bundle verify -q ../b.bundle; rm ../b.bundle
