# Makes a namespace that one thing alone holds, says which, and lets go of it at a line of input.
#
#   hold.py KIND [ARGUMENT]
import array, ctypes, os, platform, signal, socket, subprocess, sys, threading, time

NEW = {"uts": 0x4000000, "user": 0x10000000, "net": 0x40000000, "time": 0x80, "pid": 0x20000000}
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare(*types):
    check(libc.unshare(sum(NEW[t] for t in types)))


def own(file):
    return os.open(f"/proc/thread-self/ns/{file}", os.O_RDONLY)


def back(fd):
    check(libc.setns(fd, 0))


def elsewhere(type, do):
    """Does something in a new namespace, and comes back."""
    before = own(type)
    unshare(type)
    name = os.readlink(f"/proc/thread-self/ns/{type}")
    result = do()
    back(before)
    os.close(before)
    return name, result


def map_root():
    for file, text in (("uid_map", f"0 {UID} 1"), ("setgroups", "deny"), ("gid_map", f"0 {GID} 1")):
        with open(f"/proc/self/{file}", "w") as f:
            f.write(text)


def child(do):
    """A process that does something, says something, and stays until it is killed; with what it said."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(into, do().encode())
        os.close(into)
        signal.pause()
    os.close(into)
    return pid, os.read(out, 100).decode()


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def process():
    def do():
        unshare("uts")
        return os.readlink("/proc/self/ns/uts")
    pid, name = child(do)
    return name, lambda: end(pid), f"process {pid}"


def thread():
    made, over = threading.Event(), threading.Event()
    found = []

    def do():
        unshare("uts")
        found[:] = [os.readlink("/proc/thread-self/ns/uts"), threading.get_native_id()]
        made.set()
        over.wait()
    one = threading.Thread(target=do)
    one.start()
    made.wait()
    return found[0], lambda: (over.set(), one.join()), f"thread {os.getpid()} {found[1]}"


def children():
    def do():
        unshare("time")
        return os.readlink("/proc/self/ns/time_for_children")
    pid, name = child(do)
    return name, lambda: end(pid), f"children {pid}"


def descriptor():
    name, fd = elsewhere("uts", lambda: own("uts"))
    return name, lambda: os.close(fd), f"descriptor {os.getpid()} {fd}"


def in_socket():
    name, s = elsewhere("net", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    return name, s.close, f"socket {os.getpid()} {s.fileno()}"


def tap():
    name, fd = elsewhere("net", lambda: os.open("/dev/net/tun", os.O_RDWR))
    return name, lambda: os.close(fd), f"socket {os.getpid()} {fd}"


def mount():
    path = sys.argv[2]
    open(path, "w").close()
    name, _ = elsewhere("uts", lambda: subprocess.check_call(["mount", "--bind", "/proc/self/ns/uts", path]))
    return name, lambda: subprocess.check_call(["umount", path]), f"mount {path}"


def by_path():
    """A descriptor that was opened by the path of a mount, which is gone."""
    path = sys.argv[2]
    open(path, "w").close()
    name, _ = elsewhere("uts", lambda: subprocess.check_call(["mount", "--bind", "/proc/self/ns/uts", path]))
    fd = os.open(path, os.O_RDONLY)
    subprocess.check_call(["umount", "--lazy", path])  # as ip netns does
    return name, lambda: os.close(fd), f"descriptor {os.getpid()} {fd}"


def below():
    """A user namespace that has another one below it, and no task."""
    found = []

    def do():
        unshare("user")
        map_root()
        first = os.readlink("/proc/self/ns/user")
        unshare("user")
        return first + " " + os.readlink("/proc/self/ns/user")
    pid, names = child(do)
    first, second = names.split()
    return first, lambda: end(pid), f"child {second}"


def owned():
    """A user namespace that owns another namespace, and has no task."""
    def do():
        unshare("user", "uts")
        return os.readlink("/proc/self/ns/user") + " " + os.readlink("/proc/self/ns/uts")
    pid, names = child(do)
    fd = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)
    end(pid)
    user, uts = names.split()
    return user, lambda: os.close(fd), f"owned {uts}"


def zombie():
    def do():
        unshare("user")
        return os.readlink("/proc/self/ns/user")
    pid, name = child(do)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return name, lambda: os.waitpid(pid, 0), f"process {pid}"


def headless():
    """A process whose first thread has ended, in a time namespace of its own."""
    before = own("time")
    unshare("time")
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        name = os.readlink("/proc/self/ns/time")

        def rest():
            while open(f"/proc/self/task/{os.getpid()}/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.01)
            os.write(into, name.encode())
            os.close(into)
            time.sleep(1000)
        threading.Thread(target=rest).start()
        libc.syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit(2), of this thread alone
    os.close(into)
    name = os.read(out, 100).decode()
    back(before)
    return name, lambda: end(pid), f"process {pid}"


def flight():
    """A descriptor on its way through a socket."""
    name, fd = elsewhere("uts", lambda: own("uts"))
    a, b = socket.socketpair()
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.close(fd)
    return name, b.close, ""


def many():
    """Many namespaces, each held by a descriptor."""
    fds = []
    before = own("uts")
    for _ in range(int(sys.argv[2])):
        unshare("uts")
        fds.append(own("uts"))
    back(before)
    return " ".join(f"uts:[{os.fstat(fd).st_ino}]" for fd in fds), lambda: [os.close(fd) for fd in fds], ""


UID, GID = os.getuid(), os.getgid()
KINDS = dict(process=process, thread=thread, children=children, descriptor=descriptor, socket=in_socket, tap=tap,
             mount=mount, path=by_path, child=below, owned=owned, zombie=zombie, headless=headless, flight=flight, many=many)
if os.getuid() != 0:
    unshare("user")
    map_root()
    UID = GID = 0
    unshare("uts", "net")  # to which it may come back
name, release, holder = KINDS[sys.argv[1]]()
print(name, flush=True)
print(holder, flush=True)
if not sys.stdin.readline():
    sys.stdout = sys.stderr  # nobody waits for an answer
release()
if sys.stdout is not sys.stderr:
    print("released", flush=True)
    sys.stdin.readline()
