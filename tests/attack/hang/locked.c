// Keeps the lock of its own memory, so that nobody can read its arguments and environment: locked FILE.
// mmap(2) of a file that is not to be cached waits, with that lock, for the page of another reader. See hang.pl.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char page[4096];
  const char *path = argc > 1 ? argv[1] : "";
  int cached = open(path, O_RDONLY), direct = open(path, O_RDONLY);
  if (direct < 0) return 1;
  if (fork() == 0) return (int)read(cached, page, sizeof page);
  sleep(1);
  puts("ready");
  fflush(stdout);
  mmap(0, sizeof page, PROT_READ, MAP_PRIVATE, direct, 0);
  for (;;) pause();
}
