# Prints as JSON what is seen of the namespaces that this process is in, and of what the host has mounted.
import glob, json, os, sys


def table():
    found = {}
    for line in open("/proc/self/mountinfo"):
        before, after = line.split(" - ")
        fields = before.split()
        found[fields[0]] = {"root": fields[3], "options": fields[5], "spread": fields[6:], "type": after.split()[0]}
    return found


def mount(path):
    try:
        fd = os.open(path, os.O_PATH)
    except OSError as error:
        return error.strerror
    number = next(l for l in open(f"/proc/self/fdinfo/{fd}") if l.startswith("mnt_id")).split()[1]
    os.close(fd)
    return table()[number]


def names(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return error.strerror


print(json.dumps({
    "interfaces": names("/sys/class/net"),
    "queues": names("/dev/mqueue"),
    "cgroup": mount("/sys/fs/cgroup"),
    "sys": mount("/sys"),
    "name": os.uname().nodename,
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "mounts": {path: mount(path) for path in sys.argv[1:]},
    "mnt": os.readlink("/proc/self/ns/mnt"),
}))
