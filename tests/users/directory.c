// A directory service for tests, as LDAP or SSSD would be one: users of NSS, and subordinate ids for shadow.

#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// "also" has the uid of a user of /etc/passwd; the file's name for that user is another one.
static const struct {
  const char *name;
  uid_t uid;
} USERS[] = {{"ldapuser", 70001}, {"also", ALSO}};

static enum nss_status found(int i, struct passwd *user) {
  *user = (struct passwd){(char *)USERS[i].name, "x", USERS[i].uid, USERS[i].uid, "", "/tmp", "/bin/bash"};
  return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_pennetest_getpwuid_r(uid_t uid, struct passwd *user, char *buffer, size_t size, int *error) {
  for (int i = 0; i < 2; i++)
    if (USERS[i].uid == uid) return found(i, user);
  *error = ENOENT;
  return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_pennetest_getpwnam_r(const char *name, struct passwd *user, char *buffer, size_t size,
                                          int *error) {
  for (int i = 0; i < 2; i++)
    if (!strcmp(USERS[i].name, name)) return found(i, user);
  *error = ENOENT;
  return NSS_STATUS_NOTFOUND;
}

struct range {
  unsigned long start, count;
};

static const struct range GRANTED = {300000, 100};

static bool knows(const char *owner) {
  return !strcmp(owner, "ldapuser");
}

int shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count, int kind, bool *result) {
  *result = knows(owner) && start >= GRANTED.start && start + count <= GRANTED.start + GRANTED.count;
  return 0;
}

int shadow_subid_list_owner_ranges(const char *owner, int kind, struct range **ranges, int *count) {
  *count = knows(owner);
  *ranges = malloc(sizeof **ranges);
  **ranges = GRANTED;
  return 0;
}

int shadow_subid_find_subid_owners(unsigned long id, int kind, uid_t **uids, int *count) {
  *count = 0;
  return 0;
}
