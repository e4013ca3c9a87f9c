/* Hashing many chunks in one call. OpenSSL does it, found where Python's own hashlib finds it; a call per chunk from
 * Python would take and give the interpreter lock twice for each, which costs more than hashing a small chunk. */

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

/* () -> whether hash_chunks works here */
PyObject *native_can_hash(PyObject *self, PyObject *args)
{
    if (!sha256.final) {
        void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
        if (!library)
            Py_RETURN_FALSE;
        sha256.init = (int (*)(void *))dlsym(library, "SHA256_Init");
        sha256.update = (int (*)(void *, const void *, size_t))dlsym(library, "SHA256_Update");
        if (sha256.init && sha256.update)
            sha256.final = (int (*)(unsigned char *, void *))dlsym(library, "SHA256_Final");
    }
    return PyBool_FromLong(sha256.final != NULL);
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

/* (pads: the inner and outer key block of HMAC, or nothing; body; start i64[m]; length u32[m]; ids u8[m * 32]) */
PyObject *native_hash_chunks(PyObject *self, PyObject *args)
{
    Py_buffer pads, body, start, length, ids;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &pads, &body, &start, &length, &ids))
        return NULL;
    Py_ssize_t count = start.len / 8;
    bool good = expect_items(&start, count, 8, "start") && expect_items(&length, count, 4, "length") &&
                expect_items(&ids, count, DIGEST, "ids");
    if (good && (!sha256.final || (pads.len && pads.len != 2 * BLOCK))) {
        PyErr_SetString(PyExc_ValueError, sha256.final ? "pads are two blocks or nothing" : "no OpenSSL was found");
        good = false;
    }
    const any_i64 *starts = start.buf;
    const any_i32 *lengths = length.buf;
    for (Py_ssize_t i = 0; good && i < count; i++) {
        int64_t size = (uint32_t)lengths[i];
        if (starts[i] < 0 || starts[i] > body.len || size > body.len - starts[i]) {
            PyErr_SetString(PyExc_ValueError, "a chunk does not lie in the body");
            good = false;
        }
    }
    if (good) {
        state_t inner = {{0}}, outer = {{0}};
        bool fine = true;
        Py_BEGIN_ALLOW_THREADS
        fine = sha256.init(&inner) && sha256.init(&outer);
        if (fine && pads.len)
            fine = sha256.update(&inner, pads.buf, BLOCK) && sha256.update(&outer, (uint8_t *)pads.buf + BLOCK, BLOCK);
        for (Py_ssize_t i = 0; fine && i < count; i++)
            fine = hash_one(&inner, pads.len ? &outer : NULL, (uint8_t *)body.buf + starts[i], (uint32_t)lengths[i],
                            (uint8_t *)ids.buf + i * DIGEST);
        memset(&inner, 0, sizeof inner);
        memset(&outer, 0, sizeof outer);
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
