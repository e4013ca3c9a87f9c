/* Hashing many chunks in one call: a call per chunk from Python would take and give the interpreter lock twice for
 * each, which costs more than hashing a small chunk. hash_pairs.c does it where the processor can, else OpenSSL,
 * found where Python's own hashlib finds it. */

#include "native.h"

#include <dlfcn.h>
#include <string.h>

#define BLOCK 64
#define DIGEST 32

/* SHA256_CTX of OpenSSL has 112 bytes; it is a plain structure and may be copied. */
typedef struct {
    uint64_t room[32];
} state_t;

static struct {
    int (*init)(void *);
    int (*update)(void *, const void *, size_t);
    int (*final)(unsigned char *, void *);
} sha256;

enum { BY_OPENSSL = 1, BY_PAIRS = 2 };

static int ways(void)
{
    return (sha256.final ? BY_OPENSSL : 0) | (can_hash_pairs() ? BY_PAIRS : 0);
}

/* () -> the ways in which hash_chunks works here */
PyObject *native_can_hash(PyObject *self, PyObject *args)
{
    void *library = sha256.final ? NULL : dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (library) {
        sha256.init = (int (*)(void *))dlsym(library, "SHA256_Init");
        sha256.update = (int (*)(void *, const void *, size_t))dlsym(library, "SHA256_Update");
        if (sha256.init && sha256.update)
            sha256.final = (int (*)(unsigned char *, void *))dlsym(library, "SHA256_Final");
    }
    return PyLong_FromLong(ways());
}

static bool hash_one(const state_t *inner, const state_t *outer, const uint8_t *chunk, size_t length, uint8_t *out)
{
    state_t state = *inner;
    if (!sha256.update(&state, chunk, length) || !sha256.final(out, &state))
        return false;
    if (!outer)
        return true;
    state = *outer;
    return sha256.update(&state, out, DIGEST) && sha256.final(out, &state);
}

static bool hash_all(const uint8_t *pads, const uint8_t *body, const any_i64 *start, const any_u32 *length, Py_ssize_t count,
                     uint8_t *ids)
{
    state_t inner = {{0}}, outer = {{0}};
    bool fine = sha256.init(&inner) && sha256.init(&outer);
    if (fine && pads)
        fine = sha256.update(&inner, pads, BLOCK) && sha256.update(&outer, pads + BLOCK, BLOCK);
    for (Py_ssize_t i = 0; fine && i < count; i++)
        fine = hash_one(&inner, pads ? &outer : NULL, body + start[i], length[i], ids + i * DIGEST);
    explicit_bzero(&inner, sizeof inner);
    explicit_bzero(&outer, sizeof outer);
    return fine;
}

/* (way; pads: the inner and outer key block of HMAC, or nothing; body; start i64[m]; length u32[m]; ids u8[m * 32]) */
PyObject *native_hash_chunks(PyObject *self, PyObject *args)
{
    int way;
    Py_buffer pads, body, start, length, ids;
    if (!PyArg_ParseTuple(args, "iy*y*y*y*w*", &way, &pads, &body, &start, &length, &ids))
        return NULL;
    Py_ssize_t count = start.len / 8;
    bool good = expect_items(&start, count, 8, "start") && expect_items(&length, count, 4, "length") &&
                expect_items(&ids, count, DIGEST, "ids") && ranges_within(start.buf, length.buf, count, body.len);
    bool possible = (way == BY_OPENSSL || way == BY_PAIRS) && (ways() & way);
    if (good && (!possible || (pads.len && pads.len != 2 * BLOCK))) {
        PyErr_SetString(PyExc_ValueError, possible ? "pads are two blocks or nothing" : "it cannot be hashed this way");
        good = false;
    }
    if (good) {
        const uint8_t *keys = pads.len ? pads.buf : NULL;
        bool fine = true;
        Py_BEGIN_ALLOW_THREADS
        if (way == BY_PAIRS)
            hash_pairs(keys, body.buf, start.buf, length.buf, (size_t)count, ids.buf);
        else
            fine = hash_all(keys, body.buf, start.buf, length.buf, count, ids.buf);
        Py_END_ALLOW_THREADS
        if (!fine) {
            PyErr_SetString(PyExc_RuntimeError, "OpenSSL refused to hash");
            good = false;
        }
    }
    PyBuffer_Release(&pads);
    PyBuffer_Release(&body);
    PyBuffer_Release(&start);
    PyBuffer_Release(&length);
    PyBuffer_Release(&ids);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
