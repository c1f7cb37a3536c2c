#!/bin/bash
# PID 1 of a guest: sets a Debian system up, runs each script in /job/checks as the one that its name ends with, and
# writes how it ended and what it printed to the third disk, one after the other.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
exec </dev/null >/dev/console 2>&1

mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/pts /dev/shm /run/user/1000 /run/lock
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
mount -t ext4 -o ro /dev/vdb /job
chown 1000:1000 /run/user/1000
chmod 700 /run/user/1000
ln -s /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "/dev/${n#*:}"; done
hostname guest
ip link set lo up
ulimit -c 0
for module in tun veth dummy; do modprobe "$module"; done
chmod 666 /dev/net/tun
# An interface with the default route, as a host has it; it leads nowhere.
ip link add eth0 type dummy
ip addr add 192.0.2.2/24 dev eth0
ip -6 addr add 2001:db8::2/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8::1
# Systemd makes mounts shared, and lets everybody send echo requests.
mount --make-rshared /
sysctl -qw net.ipv4.ping_group_range="0 2147483647" kernel.printk="4 4 1 7"
export PATH=/job/bin:$PATH
# The pages of the program and its libraries are read from the disk now, so that the first check takes no longer.
penne --version

exec 9>/dev/vdc
echo "kernel $(uname -r) $(uname -m) $(getconf PAGESIZE 2>/dev/null) $(cat /sys/kernel/security/lsm)"
for script in /job/checks/*; do
  name=$(basename "$script")
  directory=$(mktemp -d /tmp/check.XXXXXX)
  chmod 755 "$directory"
  begin=${EPOCHREALTIME/./}
  if [ "${name##*.}" = user ]; then
    chown 1000:1000 "$directory"
    as=(setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all env HOME=/home/user
      XDG_RUNTIME_DIR=/run/user/1000 USER=penne-test)
  else
    as=(env USER=root)
  fi
  (cd "$directory" && exec timeout --kill-after=5 "$(cat /job/limit)" "${as[@]}" bash "$script") </dev/null >/tmp/output 2>&1
  code=$?
  taken=$((${EPOCHREALTIME/./} - begin))
  printf 'check %s %d %d %d\n' "$name" "$code" "$((taken / 1000))" "$(stat -c %s /tmp/output)" >&9
  cat /tmp/output >&9
  echo >&9
  sync
  echo "$name: exit $code after $((taken / 1000)) ms"
  # A process that is left may still write to the old output.
  rm -rf --one-file-system "$directory" /tmp/output
done
dmesg | grep -E 'BUG|WARNING|Oops|general protection' || true
echo "done" >&9
sync
echo o >/proc/sysrq-trigger
sleep 30
