# SPDX-License-Identifier: BSD-3-Clause
# what: perl: files, directories, locks, in-place editing, pipes, fork, tie to a DBM file, File::Find, File::Copy, modules and scripts in the tree
# needs: perl
set -u
cd "$D" || exit 1
mkdir lib; printf 'package Mod; use strict; sub f { return "mod " . shift } 1;\n' > lib/Mod.pm; printf '#!/usr/bin/perl -Ilib\nuse Mod; print Mod::f(join ",", @ARGV), "\\n"; print while <DATA>;\n__END__\nfrom the script\n' > s.pl; chmod 755 s.pl; ./s.pl a b
perl -w <<'EOT'
use strict; use Fcntl qw(:flock :seek :DEFAULT); use File::Find; use File::Copy; use File::Path qw(make_path remove_tree); use File::Temp qw(tempfile); use File::stat; use POSIX qw(:sys_wait_h); use IO::Handle; use IO::Select; use Cwd; use File::Spec; use SDBM_File; use Socket;
$| = 1;
open(my $f, '+>', 'a') or die; print $f "line $_\n" for 1 .. 1000; seek($f, 0, SEEK_SET); my @l = <$f>; print scalar(@l), " ", tell($f), " ", eof($f) ? 1 : 0, "\n"; truncate($f, 50); close $f; print -s 'a', "\n";
sysopen(my $g, 'b', O_RDWR | O_CREAT | O_EXCL, 0640) or die; syswrite($g, "abcdef"); sysseek($g, 2, SEEK_SET); sysread($g, my $buf, 3); print "$buf\n"; print sysopen(my $h, 'b', O_RDWR | O_CREAT | O_EXCL) ? "again" : "exists: $!", "\n";
flock($g, LOCK_EX) or die; my $pid = fork; if (!$pid) { open(my $o, '<', 'b'); print flock($o, LOCK_SH | LOCK_NB) ? "got" : "busy", "\n"; exit 3 } waitpid($pid, 0); print $? >> 8, "\n"; close $g;
make_path('t/u/v', 't/w'); copy('a', 't/u/c') or die; move('t/u/c', 't/w/d') or die; my @found; find(sub { push @found, $File::Find::name }, 't'); print join(' ', sort @found), "\n"; opendir(my $d, 't') or die; print join(' ', sort readdir $d), "\n"; closedir $d;
my $st = stat('a'); printf "%o %d %d\n", $st->mode & 07777, $st->size, $st->nlink; chmod 0604, 'a'; utime 100, 200, 'a'; printf "%o %d\n", (CORE::stat 'a')[2] & 07777, (CORE::stat 'a')[9]; print join(',', map { -e $_ ? 1 : 0 } qw(a none t)), -d 't' ? 'd' : '', -f 'a' ? 'f' : '', -w _ ? 'w' : '', "\n";
symlink 'a', 'l'; link 'a', 'k'; print readlink('l'), ' ', (CORE::stat 'k')[3], ' ', -l 'l' ? 1 : 0, "\n"; rename 'k', 'm'; print unlink('l', 'm', 'none'), "\n"; chdir 't'; print File::Spec->abs2rel(getcwd(), $ENV{D}), "\n"; chdir '..'; print join(' ', sort glob('*')), "\n";
tie(my %h, 'SDBM_File', 'dbm', O_RDWR | O_CREAT, 0644) or die; $h{"k$_"} = "v$_" for 1 .. 500; untie %h; tie(%h, 'SDBM_File', 'dbm', O_RDONLY, 0644) or die; print scalar(keys %h), $h{k77}, "\n"; untie %h;
pipe(my $r, my $w); if (!($pid = fork)) { close $r; open(STDOUT, '>&', $w); exec 'sh', '-c', 'cat a | head -n 2; echo err >&2' } close $w; print <$r>; waitpid $pid, 0; open(my $p, '-|', 'sort -r a | head -n 1') or die; print <$p>; close $p; open($p, '|-', 'cat > piped') or die; print $p "through"; close $p; print -s 'piped', "\n";
socketpair(my $x, my $y, AF_UNIX, SOCK_STREAM, PF_UNSPEC); my $s = IO::Select->new($x); $y->autoflush(1); print $y "z\n"; print scalar($s->can_read(5)), scalar(<$x>); { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; eval { flock_wait() }; print $@; } sub flock_wait { open(my $q, '+<', 'b') or die; flock($q, LOCK_EX); if (!(my $c = fork)) { open(my $o, '+<', 'b'); $SIG{ALRM} = sub { exit 6 }; alarm 1; flock($o, LOCK_EX); exit 1 } wait; print "interrupted ", $? >> 8, "\n"; alarm 1; select(undef, undef, undef, 5) }
my ($tf, $tn) = tempfile('XXXXXX', DIR => '.', UNLINK => 1); print $tf 'x' x 100000; $tf->flush; print -s $tn, "\n"; local $/; open($f, '<:encoding(UTF-8)', 'a'); print length(<$f>), "\n"; local @ARGV = ('a'); local $^I = '.orig'; { local $/ = "\n"; while (<>) { s/line/LINE/; print } } print -s 'a.orig', "\n"; remove_tree('t'); print -e 't' ? 1 : 0, "\n";
EOT
perl -ne 'print if /LINE/ && $. < 3' a; perl -MData::Dumper -e '$Data::Dumper::Sortkeys = 1; do "./conf.pl" or print "no conf: $!\n"'; echo 'our $c = 5; 1' > conf.pl; perl -e 'do "./conf.pl"; print "$c\n"'; rm -f dbm.pag
