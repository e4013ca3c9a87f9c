/* Opening paths below a root directory without ever following a symbolic link. */

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437 /* the same number on every architecture */
#endif
#define STEP_MAX 4095 /* bytes of path one system call takes */

/* As in linux/openat2.h, which older systems lack. */
struct open_how_v1 {
    uint64_t flags, mode, resolve;
};
enum { NO_MAGICLINKS = 0x02, NO_SYMLINKS = 0x04, BENEATH = 0x08 };

/* Old kernels answer ENOSYS, old container filters EPERM; a kernel that has the call dislikes the size 0. */
static bool has_openat2(void)
{
    static int known; /* 0: not asked yet, 1: yes, 2: no. Racing threads find the same answer. */
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!answer) {
        struct open_how_v1 how = {0};
        long result = syscall(SYS_openat2, -1, "", &how, (size_t)0);
        answer = result < 0 && errno == EINVAL ? 1 : 2;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer == 1;
}

/* "a/b", not "/a", "a//b", "a/", "./a", "a/..": what is not canonical could name something else than it says. */
static bool is_canonical(const char *path, size_t length)
{
    if (memchr(path, 0, length))
        return false;
    for (size_t start = 0; length;) {
        const char *slash = memchr(path + start, '/', length - start);
        size_t end = slash ? (size_t)(slash - path) : length;
        size_t n = end - start;
        if (n == 0 || (n == 1 && path[start] == '.') || (n == 2 && path[start] == '.' && path[start + 1] == '.'))
            return false;
        if (end == length)
            return true;
        start = end + 1;
    }
    return true;
}

/* As many whole components as one call takes; 0 if the first alone is too long. */
static size_t step_length(const char *path, size_t length, bool one_component)
{
    if (one_component) {
        const char *slash = memchr(path, '/', length);
        size_t n = slash ? (size_t)(slash - path) : length;
        return n <= STEP_MAX ? n : 0;
    }
    if (length <= STEP_MAX)
        return length;
    const char *slash = memrchr(path, '/', STEP_MAX + 1);
    return slash ? (size_t)(slash - path) : 0;
}

/* The flags have O_NOFOLLOW; a link in place of a directory is ELOOP. */
static int open_step(int at, const char *step, int flags, mode_t mode)
{
    int fd, tries = 0;
    if (has_openat2()) {
        struct open_how_v1 how = {
            .flags = (unsigned)(flags & O_DIRECTORY ? flags & ~O_NOFOLLOW : flags),
            .mode = flags & O_CREAT ? mode & 07777 : 0,
            .resolve = BENEATH | NO_SYMLINKS | NO_MAGICLINKS,
        };
        do /* EAGAIN: something was renamed during the walk */
            fd = (int)syscall(SYS_openat2, at, step, &how, sizeof how);
        while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 64)));
        return fd;
    }
    do
        fd = openat(at, step, flags, mode);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 && errno == ENOTDIR && flags & O_DIRECTORY) { /* tell a link from a file, as openat2 does */
        struct stat st;
        errno = fstatat(at, step, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
    }
    return fd;
}

/* A descriptor of `path` below `root`, or -1 with errno. Paths of any length; "" is the root itself. */
int open_below(int root, const char *path, size_t length, int flags, mode_t mode)
{
    if (!is_canonical(path, length)) {
        errno = EINVAL;
        return -1;
    }
    if (length == 0)
        return openat(root, ".", flags | O_CLOEXEC, mode);
    char step[STEP_MAX + 1];
    bool one_component = !has_openat2();
    int at = root;
    for (;;) {
        size_t n = step_length(path, length, one_component);
        bool last = n == length;
        int fd = -1;
        if (n == 0) {
            errno = ENAMETOOLONG;
        } else {
            memcpy(step, path, n);
            step[n] = 0;
            int how = last ? flags | O_NOFOLLOW : O_PATH | O_DIRECTORY | O_NOFOLLOW;
            fd = open_step(at, step, how | O_CLOEXEC, mode);
        }
        if (at != root) {
            int error = errno;
            close(at);
            errno = error;
        }
        if (fd < 0 || last)
            return fd;
        at = fd;
        path += n + 1;
        length -= n + 1;
    }
}

/* Bytes of the path before its last slash: 0 for a name in the root. */
size_t parent_length(const char *path, size_t length)
{
    const char *slash = length ? memrchr(path, '/', length) : NULL;
    return slash ? (size_t)(slash - path) : 0;
}

/* A NUL-terminated copy of one component; 0 or an errno. */
int copy_name(char name[NAME_ROOM], const char *bytes, size_t length)
{
    if (length >= NAME_ROOM)
        return ENAMETOOLONG;
    if (length == 0 || memchr(bytes, '/', length) || !is_canonical(bytes, length))
        return EINVAL;
    memcpy(name, bytes, length);
    name[length] = 0;
    return 0;
}

cursor_t cursor_at(int root)
{
    return (cursor_t){.root = root, .fd = -1};
}

/* Closes the levels from `depth` on. */
static void close_levels(cursor_t *cursor, int depth)
{
    while (cursor->depth > depth)
        close(cursor->levels[--cursor->depth].fd);
}

void cursor_close(cursor_t *cursor)
{
    close_levels(cursor, 0);
    cursor->fd = -1;
    cursor->entered = false;
}

/* Levels above or equal to path[0 .. n): how many of those that are open. */
static int shared_levels(const cursor_t *cursor, const char *path, size_t n)
{
    int depth = cursor->depth;
    for (; depth; depth--) {
        size_t length = cursor->levels[depth - 1].length;
        if ((length == n || (length < n && path[length] == '/')) && memcmp(cursor->opened, path, length) == 0)
            break;
    }
    return depth;
}

/* Opens path[0 .. n) from the last level and makes it a level; 0 or an errno. */
static int add_level(cursor_t *cursor, const char *path, size_t n)
{
    if (cursor->depth == CURSOR_LEVELS)
        close_levels(cursor, 0);
    size_t above = cursor->depth ? cursor->levels[cursor->depth - 1].length + 1 : 0;
    int at = cursor->depth ? cursor->levels[cursor->depth - 1].fd : cursor->root;
    int fd = open_below(at, path + above, n - above, O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return errno;
    cursor->levels[cursor->depth].fd = fd;
    cursor->levels[cursor->depth++].length = n;
    return 0;
}

/* Opens path[0 .. n) and the directory above it, from which its neighbours are one step; 0 or an errno. */
static int open_levels(cursor_t *cursor, const char *path, size_t n)
{
    if (!is_canonical(path, n))
        return EINVAL;
    close_levels(cursor, shared_levels(cursor, path, n));
    cursor->opened = path;
    size_t reached = cursor->depth ? cursor->levels[cursor->depth - 1].length : 0;
    size_t above = parent_length(path, n);
    if (reached == n)
        return 0;
    int error = above > reached ? add_level(cursor, path, above) : 0;
    return error ? error : add_level(cursor, path, n);
}

/* Opens the directory that holds `path` unless it is open already and copies the last component to `name`.
 * 0 or an errno; then cursor->fd is the directory. */
int cursor_enter(cursor_t *cursor, const char *path, size_t length, char name[NAME_ROOM])
{
    size_t n = parent_length(path, length);
    const char *last = path + n;
    size_t left = length - n;
    if (left && *last == '/')
        last++, left--;
    if (n == 0 && last != path)
        return EINVAL; /* an absolute path */
    int error = copy_name(name, last, left);
    if (error)
        return error;
    if (cursor->entered && cursor->length == n && memcmp(cursor->path, path, n) == 0)
        return cursor->error;
    cursor->error = n ? open_levels(cursor, path, n) : 0;
    cursor->fd = cursor->error ? -1 : n ? cursor->levels[cursor->depth - 1].fd : cursor->root;
    cursor->path = path;
    cursor->length = n;
    cursor->entered = true;
    return cursor->error;
}

/* (root_fd, path, flags, mode) -> fd */
PyObject *native_open_beneath(PyObject *self, PyObject *args)
{
    int root, flags, fd;
    unsigned int mode;
    Py_buffer path;
    if (!PyArg_ParseTuple(args, "iy*iI", &root, &path, &flags, &mode))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    fd = open_below(root, path.buf, (size_t)path.len, flags, (mode_t)mode);
    Py_END_ALLOW_THREADS
    PyObject *result = fd < 0 ? raise_errno(errno, path.buf, path.len) : PyLong_FromLong(fd);
    PyBuffer_Release(&path);
    return result;
}
