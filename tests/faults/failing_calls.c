/* Preloaded into a process: one system call on files below a folder fails, once, as a disk or a quota makes it fail.
 * lox_fail(call, error, after, under) arms it: the call number `after` (from 0) of that kind fails with errno `error`.
 * lox_calls() is how many of the kind were made since, lox_failed_path() what the one that failed was about. The real call is made first for fsync and close, as a kernel does:
 * the bytes may be there or not, and the descriptor is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char armed[32], folder[4096], last[4096];
static int failing, countdown = -1, calls;

void lox_fail(const char *call, int error, int after, const char *under) {
    pthread_mutex_lock(&lock);
    snprintf(armed, sizeof armed, "%s", call);
    snprintf(folder, sizeof folder, "%s", under);
    failing = error, countdown = after, calls = 0;
    pthread_mutex_unlock(&lock);
}

int lox_calls(void) { return calls; }

/* The path of the call that failed last. */
const char *lox_failed_path(void) { return last; }

static int due(const char *call, const char *path) {
    int found = 0;
    pthread_mutex_lock(&lock);
    if (!strcmp(call, armed) && !strncmp(path, folder, strlen(folder))) {
        calls++;
        found = countdown-- == 0;
        if (found) snprintf(last, sizeof last, "%s", path);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static int due_fd(const char *call, int fd) {
    char link[64], path[4096];
    if (!armed[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return due(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL return errno = failing, -1

int fsync(int fd) {
    int bad = due_fd("fsync", fd), result = REAL(fsync)(fd);
    if (bad) FAIL;
    return result;
}

int close(int fd) {
    int bad = due_fd("close", fd), result = REAL(close)(fd);
    if (bad) FAIL;
    return result;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (due_fd("write", fd)) FAIL;
    return REAL(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (due_fd("writev", fd)) {
        if (count > 1) REAL(writev)(fd, parts, 1); /* some of it was written before it failed */
        FAIL;
    }
    return REAL(writev)(fd, parts, count);
}

int mkdir(const char *path, mode_t mode) {
    if (due("mkdir", path)) FAIL;
    return REAL(mkdir)(path, mode);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    if (due("link", to)) FAIL;
    return REAL(linkat)(from_fd, from, to_fd, to, flags);
}

int link(const char *from, const char *to) {
    if (due("link", to)) FAIL;
    return REAL(link)(from, to);
}

int unlink(const char *path) {
    if (due("unlink", path)) FAIL;
    return REAL(unlink)(path);
}
