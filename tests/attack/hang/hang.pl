# A FUSE file system that never answers: perl hang.pl DIRECTORY [OPERATION…]. The operations named by number are answered:
# every name is a file with execute permission then, which is cached when it is opened first. See linux/fuse.h.
use strict; use warnings; use Config;
my ($directory, @answered) = @ARGV;
my %answered = map { $_ => 1 } @answered;
my ($LOOKUP, $GETATTR, $OPEN, $INIT) = (1, 3, 14, 26);
my ($DIRECT_IO, $opened) = (1, 0);
sysopen(my $fuse, "/dev/fuse", 2) or die "/dev/fuse: $!";
my $mount = $Config{archname} =~ /aarch64/ ? 40 : 165;
my $options = "fd=" . fileno($fuse) . ",rootmode=40000,user_id=0,group_id=0,allow_other";
my @mount = ("hang", $directory, "fuse", 0, $options); # syscall() takes no constant strings
syscall($mount, @mount) == 0 or die "mount: $!";
# struct fuse_attr: ino, size, blocks, three times, their nanoseconds, mode, links, owner, group, device, block size, flags.
sub attributes { my ($node) = @_; return pack("Q6 L3 L7", $node, 4096, 8, 0, 0, 0, 0, 0, 0, $node == 1 ? 040755 : 0100755, 1, 0, 0, 0, 4096, 0) }
while (sysread($fuse, my $request, 1 << 20)) {
  my (undef, $operation, $unique, $node) = unpack("L L Q Q", $request);
  my $answer =
    $operation == $INIT ? pack("L4 S2 L2 S2 L8", 7, 31, 65536, 0, 0, 0, 65536, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    : !$answered{$operation} ? undef
    : $operation == $LOOKUP ? pack("Q4 L2", 2, 1, 60, 60, 0, 0) . attributes(2)
    : $operation == $GETATTR ? pack("Q L2", 60, 0, 0) . attributes($node)
    : $operation == $OPEN ? pack("Q L2", 1, $opened++ ? $DIRECT_IO : 0, 0)
    : undef;
  syswrite($fuse, pack("L l Q", 16 + length $answer, 0, $unique) . $answer) if defined $answer;
}
