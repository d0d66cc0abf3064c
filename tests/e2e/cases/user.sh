# SPDX-License-Identifier: BSD-3-Clause
# what: an unprivileged user: permissions, ownership, umask, sticky directories
# user: nobody
set -u
cd "$D" || exit 1
umask 027; echo x > f; mkdir d; stat -c '%n %a %U' f d; umask 0; echo y > g; mkdir e; stat -c '%n %a' g e; umask 077; touch h; stat -c %a h
chmod 000 f; cat f; echo z > f; chmod 400 f; cat f; echo z > f; chmod 200 f; cat f; echo zz >> f; chmod 644 f; cat f
chmod 500 d; touch d/x; mkdir d/y; ls d; chmod 300 d; ls d; touch d/x; chmod 600 d; cat d/x; stat d/x; chmod 700 d; ls d
chown root f; chown nobody f; chgrp root f; chmod 4755 f; stat -c %a f; chmod 2755 d; stat -c %a d
mkdir s; chmod 1777 s; touch s/a; rm s/a; ln -s f l; chmod 600 l; stat -c '%a %U' f; setfattr -n user.t -v v f 2>&1; setfattr -n trusted.t -v v f 2>&1
mknod n c 1 3; mknod p p; stat -c '%F' p; test -w f && echo w; test -x f || echo nox; chmod 111 f; test -x f && echo x
touch -d '2000-01-01 UTC' f; stat -c %Y f; truncate -s 5 f; cp -p g g2; stat -c %a g2; rm -f f g g2
