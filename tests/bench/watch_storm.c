// Storms of namespaces, as fast as one process can make them: what a watcher must keep up with.
//
// watch_storm uts|net COUNT [RATE]: unshare(NEWUTS), or fork + unshare(NEWNET) + exit, COUNT times, at most RATE a second.
// Waits for a line on its standard input first, and prints "COUNT NANOSECONDS CPU_NANOSECONDS" at the end.

#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

// Time on a processor, of this process and its children: what other load on the machine does not change.
static long long busy(void) {
  struct timespec time;
  struct rusage children;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  getrusage(RUSAGE_CHILDREN, &children);
  return time.tv_sec * 1000000000ll + time.tv_nsec +
         (children.ru_utime.tv_sec + children.ru_stime.tv_sec) * 1000000000ll +
         (children.ru_utime.tv_usec + children.ru_stime.tv_usec) * 1000ll;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int net = !strcmp(argv[1], "net");
  long count = atol(argv[2]);
  double rate = argc > 3 ? atof(argv[3]) : 0;
  char line[16];
  if (read(0, line, sizeof line) < 0) return 1;
  long long start = now(), start_busy = busy();
  for (long i = 0; i < count; i++) {
    if (net) {
      pid_t pid = fork();
      if (pid < 0) return 1;
      if (pid == 0) _exit(unshare(CLONE_NEWNET) != 0);
      int status;
      if (waitpid(pid, &status, 0) != pid || status) return 1;
    } else if (unshare(CLONE_NEWUTS)) {
      return 1;
    }
    if (rate > 0) {
      long long due = start + (long long)((i + 1) * 1e9 / rate), left = due - now();
      if (left > 50000) {
        struct timespec wait = {left / 1000000000, left % 1000000000};
        nanosleep(&wait, NULL);
      }
    }
  }
  printf("%ld %lld %lld\n", count, now() - start, busy() - start_busy);
  return 0;
}
