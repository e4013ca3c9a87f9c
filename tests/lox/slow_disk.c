/* Preloaded (LD_PRELOAD): files below LOX_SLOW_DISK are read as from a disk with one head.
 *
 * A read is served in slices, one slice of any reader at a time, as a disk's queue does. A slice that does not follow
 * on the one before it on the "disk" costs a seek. So a single reader runs at the full rate but for one seek a file,
 * and two readers at once spend most of the time seeking. Files lie one after the other in the order of their first read.
 *
 * With LOX_SLOW_DISK_MS they are read as over a network instead: each read waits so long, and any number wait at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SLICE (128 << 10)
#define SEEK_NS 10000000LL
#define BYTES_PER_MS (200 << 10) /* 200 MiB/s */

static pthread_mutex_t head = PTHREAD_MUTEX_INITIALIZER;
static ino_t at_inode;
static off_t at_offset;
static long long owed; /* ns not slept yet: sleeps are long enough to be exact */

static int is_slow(int fd)
{
    static const char *root;
    char link[64], path[PATH_MAX];
    if (!root && !(root = getenv("LOX_SLOW_DISK")))
        root = "";
    if (!*root)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return !strncmp(path, root, strlen(root));
}

static void wait_ns(long long ns)
{
    struct timespec begin, end;
    owed += ns;
    if (owed < 1000000)
        return;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    struct timespec rest = {owed / 1000000000, owed % 1000000000};
    nanosleep(&rest, NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    owed -= (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec;
}

/* What the disk takes for this range, slice by slice, so that readers at once take turns. */
static void serve(int fd, off_t offset, size_t size)
{
    struct stat status;
    if (!size || fstat(fd, &status) || !S_ISREG(status.st_mode))
        return;
    const char *network = getenv("LOX_SLOW_DISK_MS");
    if (network) {
        usleep((useconds_t)atoi(network) * 1000);
        return;
    }
    for (size_t done = 0; done < size; done += SLICE) {
        size_t part = size - done < SLICE ? size - done : SLICE;
        pthread_mutex_lock(&head);
        long long cost = (long long)part * 1000000 / BYTES_PER_MS;
        if (status.st_ino != at_inode || offset + (off_t)done != at_offset)
            cost += SEEK_NS;
        at_inode = status.st_ino;
        at_offset = offset + (off_t)(done + part);
        wait_ns(cost);
        pthread_mutex_unlock(&head);
        if (done + part < size)
            usleep(1); /* whoever waits for the head comes first */
    }
}

ssize_t read(int fd, void *buffer, size_t size)
{
    static ssize_t (*real)(int, void *, size_t);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "read");
    if (!is_slow(fd))
        return real(fd, buffer, size);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t got = real(fd, buffer, size);
    if (got > 0)
        serve(fd, offset, (size_t)got);
    return got;
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    static ssize_t (*real)(int, const struct iovec *, int, off64_t, int);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "preadv64v2");
    ssize_t got = real(fd, parts, count, offset, flags);
    if (got > 0 && is_slow(fd))
        serve(fd, offset, (size_t)got);
    return got;
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return preadv64v2(fd, parts, count, offset, 0);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return preadv64v2(fd, parts, count, offset, flags);
}

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
    return preadv64v2(fd, parts, count, offset, 0);
}
