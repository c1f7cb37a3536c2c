#!/usr/bin/perl
# Starts `penne nsexec` as runc does, sends it one message, and says how every stage ended.
#
#   bootstrap.pl DIALECT [ATTRIBUTE=VALUE…] -- COMMAND [ARGUMENT…]
#
# Attributes: flags (of clone(2), hexadecimal), paths, uid, gid (maps), setgroup, rootless, time; raw sends a message of these bytes.
use strict;
use warnings;
use Socket;

my %types = (flags => 27281, paths => 27282, uid => 27283, gid => 27284, setgroup => 27285, rootless => 27287, time => 27290);
my $dialect = shift;
my ($attributes, $raw) = ("", undef);
while (defined(my $word = shift)) {
  last if $word eq "--";
  my ($name, $value) = split /=/, $word, 2;
  if ($name eq "raw") { $raw = pack "H*", $value; next }
  $value =~ s/\\n/\n/g;
  my $data = $name eq "flags" ? pack("L", hex $value) : $name =~ /^(setgroup|rootless)$/ ? pack("L", $value) : "$value\0";
  $attributes .= pack("SS", 4 + length $data, $types{$name}) . $data . "\0" x (-length($data) % 4);
}
my $message = $raw // pack("LSSLL", 16 + length $attributes, 62000, 1, 0, 0) . $attributes;

$^F = 100; # descriptors below this are passed on
socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, 0) or die "socketpair: $!";
my $child = fork // die "fork: $!";
if (!$child) {
  close $ours;
  $ENV{_LIBCONTAINER_INITPIPE} = fileno $theirs;
  exec "penne", "nsexec", "--dialect", $dialect, "--", @ARGV or die "exec: $!";
}
close $theirs;
syswrite $ours, $message;
waitpid $child, 0;
print "stage 0 exit ", $? >> 8, "\n";
my $line = "";
while ($line !~ /\n/ && sysread($ours, my $byte, 1)) { $line .= $byte unless $byte eq "\0" }
for my $stage (1, 2) {
  next unless $line =~ /"stage${stage}_pid":(\d+)/;
  waitpid $1, 0;
  print "stage $stage exit ", $? >> 8, "\n";
}
