# SPDX-License-Identifier: BSD-3-Clause
# what: working directories: cd in and out, pwd, relative paths, .., CDPATH, deleted directories, subshells
set -u
cd "$D" || exit 1
mkdir -p one/two/three; echo 1 > one/f; echo 3 > one/two/three/f
cd one/two; pwd; pwd -P; /bin/pwd; cat ../f three/f ./three/../three/f; ls ..
(cd three; /bin/pwd; cat f; cd ../../..; /bin/pwd; cat one/f)
cd ../..; /bin/pwd; cd /; /bin/pwd; cat "${D#/}/one/f"; cd "$D/one"; cd /tmp; cd - ; /bin/pwd
python3 -c 'import os; os.chdir("two"); print(os.getcwd()); os.chdir(".."); fd = os.open("two", os.O_RDONLY); os.fchdir(fd); print(os.getcwd()); print(os.stat("three/f", dir_fd=fd).st_size); print(sorted(os.listdir(fd)))'
mkdir gone; cd gone; rmdir ../gone; touch x; ls; /bin/pwd; cd ..; /bin/pwd
sh -c 'cd two && sh -c "cd three && cat f && cat ../../f"'
env -C two /bin/pwd; env -C two/three cat f
find . -name f | sort; find . -execdir pwd \; | sort
cd two/three && mv ../../../one ../../../uno && /bin/pwd; cat f ../../f; cd "$D"; ls
ls ../"$(basename "$D")"/uno; ls "$D/../$(basename "$D")/uno/two/../../uno"; ls "$D//uno/./two//"
