# SPDX-License-Identifier: BSD-3-Clause
# what: extended attributes and ACLs through getfattr, setfattr, getfacl, setfacl, cp --preserve=xattr
# needs: setfattr getfattr setfacl getfacl
set -u
cd "$D" || exit 1
touch f; mkdir d; ln -s f l
setfattr -n user.one -v 1 f; setfattr -n user.two -v 0x00ff00 f; setfattr -n user.dir -v d d; getfattr -d f d; getfattr -n user.none f
setfattr -x user.one f; setfattr -x user.one f; getfattr -d f; setfattr -h -n user.l -v x l; setfattr -n trusted.t -v t f; getfattr -m - -d f
setfattr -n user.big -v "$(head -c 3000 /dev/zero | tr '\0' b)" f; getfattr -n user.big --only-values f | wc -c; setfattr -n bad.ns -v x f
cp --preserve=all f g; getfattr -d g | grep -c user; setfacl -m u:nobody:r,g:daemon:rw f; getfacl f; getfacl d; setfacl -d -m u:nobody:rwx d; touch d/x; getfacl d/x
setfacl -b f; getfacl f; mv f d/; getfattr -d d/f | head -n 2
