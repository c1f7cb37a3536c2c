# Takes the socket of PID 1, an agent, and speaks in its place: steal.py MODE. To be run as the command of penne run, as root
# of the user namespace in which the agent was executed. See struct answer in libshim.c.
import array, ctypes, os, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
PIDFD_OPEN, PIDFD_GETFD = 434, 438
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
ANSWER, CHILD = 0, 1
CONTINUED = 0xFFFF

pidfd = libc.syscall(PIDFD_OPEN, 1, 0)
numbers = [int(name) for name in os.listdir("/proc/1/fd") if os.readlink("/proc/1/fd/" + name).startswith("socket:")]
agent = socket.socket(fileno=libc.syscall(PIDFD_GETFD, pidfd, numbers[0], 0))
command, mode = os.getpid(), sys.argv[1]


def packet(kind, status, result):
    return struct.pack("<IIq", kind, status, result)


def descriptors(count):
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * count))]


def send(*args):
    try:
        agent.sendmsg(*args)
    except OSError:
        sys.exit(3)


print("in place", flush=True)
if mode == "unknown": send([b"\x07" * 16])
if mode == "short": send([b"x"])
if mode == "answer": send([packet(ANSWER, 0, 5)])
if mode == "another process": send([packet(CHILD, 0, command + 1)])
if mode == "descriptors":
    for _ in range(2000): send([packet(CHILD, CONTINUED, command)], descriptors(8))
if mode == "false end": send([packet(CHILD, 0, command)])
if mode == "false status":  # a stopped agent does not reap its child, and reports nothing
    if os.fork() == 0:
        libc.ptrace(PTRACE_SEIZE, 1, 0, 0)
        libc.ptrace(PTRACE_INTERRUPT, 1, 0, 0)
        while open(f"/proc/{command}/stat").read().rsplit(")")[1].split()[0] != "Z": time.sleep(0.01)
        send([packet(CHILD, 0, command)])
        time.sleep(100)
    time.sleep(0.5)
    os._exit(7)
if mode == "flood":
    while True: send([packet(CHILD, CONTINUED, command)] )
time.sleep(100)
