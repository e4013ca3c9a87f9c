/* The roofline of a restore: create and write the same files, and nothing else.
 *
 * usage: bare_write TARGET THREADS < list
 * The list holds records {u64 size, i64 mtime_ns, u32 mode, u32 path_length, path}: directories before what is in them.
 * Content comes from one buffer of noise; mode and mtime are set, as every restore must.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOISE (8u << 20)
#define STRIDE 64

struct head { uint64_t size; int64_t mtime; uint32_t mode, length; } __attribute__((packed));
struct file { struct head head; char *path; };

static struct file *files;
static size_t count, capacity;
static atomic_size_t next_file;
static int root;
static char *noise;

static void fail(const char *what, const char *path) {
    fprintf(stderr, "%s: %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static void write_one(const struct file *file) {
    int fd = openat(root, file->path, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) fail("create", file->path);
    for (uint64_t left = file->head.size; left;) {
        ssize_t done = write(fd, noise, left < NOISE ? left : NOISE);
        if (done <= 0) fail("write", file->path);
        left -= (uint64_t)done;
    }
    struct timespec when = {file->head.mtime / 1000000000, file->head.mtime % 1000000000};
    struct timespec both[2] = {when, when};
    if (fchmod(fd, file->head.mode & 07777) || futimens(fd, both) || close(fd)) fail("finish", file->path);
}

static void *worker(void *unused) {
    for (;;) {
        size_t from = atomic_fetch_add(&next_file, STRIDE);
        if (from >= count) return unused;
        for (size_t i = from; i < count && i < from + STRIDE; i++) write_one(&files[i]);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    root = open(argv[1], O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (root < 0) fail("open", argv[1]);
    noise = malloc(NOISE);
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < NOISE / 8; i++) {
        state ^= state << 13; state ^= state >> 7; state ^= state << 17;
        ((uint64_t *)noise)[i] = state;
    }
    struct file file;
    while (fread(&file.head, sizeof file.head, 1, stdin) == 1) {
        file.path = calloc(1, file.head.length + 1);
        if (fread(file.path, 1, file.head.length, stdin) != file.head.length) fail("list", "truncated");
        if (S_ISDIR(file.head.mode)) {
            if (mkdirat(root, file.path, 0700) && errno != EEXIST) fail("mkdir", file.path);
            free(file.path);
            continue;
        }
        if (count == capacity) files = realloc(files, (capacity = capacity * 2 + 1024) * sizeof *files);
        files[count++] = file;
    }
    int threads = atoi(argv[2]);
    pthread_t ids[64];
    if (threads < 1 || threads > 64) return 2;
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, worker, NULL);
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    return 0;
}
