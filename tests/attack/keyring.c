// Adds a key to the session keyring and executes a command, or reads that key: keyring add COMMAND..., keyring read.
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KEYCTL_JOIN_SESSION_KEYRING = 1, KEYCTL_SEARCH = 10, KEYCTL_READ = 11, SESSION = -3 };

int main(int argc, char **argv) {
  char secret[64] = {0};
  if (argc > 2 && !strcmp(argv[1], "add")) {
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    if (syscall(SYS_add_key, "user", "penne-test", "topsecret", 9, SESSION) < 0) return perror("add_key"), 2;
    execvp(argv[2], argv + 2);
    return perror(argv[2]), 2;
  }
  long key = syscall(SYS_keyctl, KEYCTL_SEARCH, SESSION, "user", "penne-test", 0);
  if (key < 0) return perror("search"), 1;
  if (syscall(SYS_keyctl, KEYCTL_READ, key, secret, sizeof secret - 1) < 0) return perror("read"), 1;
  puts(secret);
}
