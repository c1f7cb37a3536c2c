// SPDX-License-Identifier: MIT
// storm.c: makes namespaces, or processes, at a rate or as fast as one process can.
//
//   storm uts|net|fork COUNT RATE
//
// uts: unshare(CLONE_NEWUTS) in this process; net: fork, unshare(CLONE_NEWNET) and exit; fork: fork and exit. RATE is a
// second's, 0 for as fast as can be. Prints "PID NS" when it is done: nanoseconds from the first to the last; and before
// that, if there is a RATE, a line "TIME PID" for each, the time of CLOCK_MONOTONIC at which the call had returned.

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct made {
  long long time;
  int pid;
};

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void require(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: storm uts|net|fork COUNT RATE\n");
    return 2;
  }
  const char *kind = argv[1];
  const long count = atol(argv[2]), rate = atol(argv[3]);
  struct made *made = mmap(NULL, sizeof *made * (size_t)(count + 1), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(made != MAP_FAILED, "mmap");
  const long long start = now();
  for (long i = 0; i < count; i++) {
    if (rate) {
      const long long at = start + i * 1000000000LL / rate;
      const struct timespec t = {at / 1000000000LL, at % 1000000000LL};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
    if (!strcmp(kind, "uts")) {
      require(unshare(CLONE_NEWUTS) == 0, "unshare");
      made[i].time = now();
      made[i].pid = getpid();
      continue;
    }
    const pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
      if (!strcmp(kind, "net") && unshare(CLONE_NEWNET) != 0) _exit(1);
      made[i].time = now();
      made[i].pid = getpid();
      _exit(0);
    }
    int status;
    require(waitpid(child, &status, 0) == child && status == 0, "child");
  }
  const long long end = now();
  for (long i = 0; rate && i < count; i++) printf("%lld %d\n", made[i].time, made[i].pid);
  printf("%d %lld\n", getpid(), end - start);
  return 0;
}
