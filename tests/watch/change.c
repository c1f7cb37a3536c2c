// Changes its namespaces by the call in argv[1], and prints their inode numbers before and after.
//
// Lines: "before REASON TID PID INUM…" and "after REASON TID PID INUM…", in the order of `names`; 0 if unreadable.
// An "after" belongs to the "before" that precedes it. A refused call prints "failed REASON TID FLAG ERRNO".

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *names[] = {
    "user", "mnt", "pid", "ipc", "uts", "net", "cgroup", "time", "pid_for_children", "time_for_children"};
static const struct {
  unsigned flag;
  const char *file;
} types[] = {{0x10000000, "user"}, {0x20000, "mnt"},    {0x20000000, "pid"},   {0x8000000, "ipc"},
             {0x4000000, "uts"},   {0x40000000, "net"}, {0x2000000, "cgroup"}, {0x80, "time_for_children"}};

static void say(const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (write(1, line, n) != n) _exit(9);
}

// The numbers in the pid namespace of the mounted /proc, which is that of the tests.
static void whoami(int *pid, int *tid) {
  char link[64] = {0};
  *pid = *tid = 0;
  if (readlink("/proc/thread-self", link, sizeof link - 1) < 0) _exit(8);
  sscanf(link, "%d/task/%d", pid, tid);
}

static void state(const char *when, const char *reason) {
  char line[400];
  int pid, tid, n = 0;
  whoami(&pid, &tid);
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    char path[64], link[64] = {0};
    unsigned inum = 0;
    snprintf(path, sizeof path, "/proc/thread-self/ns/%s", names[i]);
    if (readlink(path, link, sizeof link - 1) > 0) sscanf(strchr(link, '['), "[%u]", &inum);
    n += snprintf(line + n, sizeof line - n, " %u", inum);
  }
  say("%s %s %d %d%s\n", when, reason, tid, pid, line);
}

static void must(long result, const char *what) {
  if (result >= 0) return;
  say("error %s %d\n", what, errno);
  _exit(7);
}

static long raw_clone(unsigned long flags) {
  return syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

static long raw_clone3(unsigned long flags) {
  uint64_t args[8] = {flags, 0, 0, 0, SIGCHLD};
  return syscall(SYS_clone3, args, sizeof args);
}

static void await(long pid) {
  int status;
  must(waitpid(pid, &status, 0), "waitpid");
}

// Starts a process in new namespaces that ends once the pipe is closed.
static long target(unsigned flags, int *hold) {
  int ready[2], stay[2];
  char byte;
  must(pipe(ready), "pipe");
  must(pipe(stay), "pipe");
  state("before", "clone");
  long pid = raw_clone3(flags);
  must(pid, "clone3");
  if (pid == 0) {
    close(stay[1]);
    state("after", "clone");
    close(ready[1]);
    _exit(read(stay[0], &byte, 1) != 0);
  }
  close(stay[0]);
  close(ready[1]);
  if (read(ready[0], &byte, 1) != 0) _exit(6);
  *hold = stay[1];
  return pid;
}

static void *thread(void *flags) {
  state("before", "unshare");
  must(unshare((int)(intptr_t)flags), "unshare");
  state("after", "unshare");
  return NULL;
}

#if defined(__x86_64__)
static long call32(long number, long a, long b) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b) : "memory", "r8", "r9", "r10", "r11");
  return (int)result;
}
#endif

static void failed(const char *reason, unsigned flag, long result) {
  int pid, tid;
  whoami(&pid, &tid);
  if (result >= 0) _exit(5);
  say("failed %s %d %u %d\n", reason, tid, flag, errno);
}

int main(int argc, char **argv) {
  (void)argc;
  const char *way = argv[1];
  unsigned flags = strtoul(argv[2], NULL, 0);
  int hold = -1;
  if (!strcmp(way, "state")) {
    state("after", "exec");
  } else if (!strcmp(way, "clone") || !strcmp(way, "clone3")) {
    state("before", "clone");
    long pid = way[5] ? raw_clone3(flags) : raw_clone(flags);
    must(pid, way);
    if (pid == 0) {
      state("after", "clone");
      _exit(0);
    }
    await(pid);
  } else if (!strcmp(way, "unshare")) {
    state("before", "unshare");
    must(unshare(flags), way);
    state("after", "unshare");
  } else if (!strcmp(way, "fork")) { // after unshare
    state("before", "unshare");
    must(unshare(flags), way);
    state("after", "unshare");
    state("before", "clone");
    long pid = raw_clone(0);
    must(pid, "fork");
    if (pid == 0) {
      state("after", "clone");
      _exit(0);
    }
    await(pid);
  } else if (!strcmp(way, "setns") || !strcmp(way, "setns0")) {
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
      if (!(flags & types[i].flag)) continue;
      char path[64];
      long pid = target(types[i].flag, &hold);
      // A child of clone3(2) is itself in the new time namespace.
      snprintf(path, sizeof path, "/proc/%ld/ns/%s", pid, types[i].flag == 0x80 ? "time" : types[i].file);
      int fd = open(path, O_RDONLY | O_CLOEXEC);
      must(fd, path);
      state("before", "setns");
      must(setns(fd, way[5] ? 0 : types[i].flag), way);
      state("after", "setns");
      close(fd);
      close(hold);
      await(pid);
    }
  } else if (!strcmp(way, "pidfd")) {
    long pid = target(flags, &hold);
    int fd = syscall(SYS_pidfd_open, pid, 0);
    must(fd, "pidfd_open");
    state("before", "setns");
    must(setns(fd, flags), way);
    state("after", "setns");
    close(fd);
    close(hold);
    await(pid);
  } else if (!strcmp(way, "exec") || !strcmp(way, "vfork")) {
    state("before", "unshare");
    must(unshare(flags), way);
    state("after", "unshare");
    char *arguments[] = {argv[0], "state", "0", NULL};
    state("before", "exec");
    if (way[0] == 'v') {
      pid_t pid = vfork();
      if (pid == 0) {
        execv(argv[0], arguments);
        _exit(4);
      }
      await(pid);
    } else {
      execv(argv[0], arguments);
    }
  } else if (!strcmp(way, "thread")) {
    pthread_t other;
    state("before", "unshare");
    pthread_create(&other, NULL, thread, (void *)(intptr_t)flags);
    pthread_join(other, NULL);
  } else if (!strcmp(way, "refused")) {
    int net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), file = open("/", O_RDONLY | O_CLOEXEC);
    must(setresuid(65534, 65534, 65534), "setresuid");
    failed("unshare", flags, unshare(flags));
    failed("setns", 0x4000000, setns(-1, 0x4000000));
    failed("setns", 0x40000000, setns(net, 0));
    failed("clone", 0x4000000, raw_clone(0x4000000));
    failed("clone", 0x8000000, raw_clone3(0x8000000));
    if (setns(file, 0) >= 0) _exit(5); // asks for nothing
#if defined(__x86_64__)
  } else if (!strcmp(way, "compat")) {
    if (call32(20, 0, 0) != getpid()) {
      say("none\n");
      return 0;
    }
    state("before", "unshare");
    must(call32(310, flags, 0), way);
    state("after", "unshare");
#endif
  } else {
    return 3;
  }
  return 0;
}
