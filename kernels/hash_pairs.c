/* SHA-256 (FIPS 180-4) of many chunks, two at a time, with the SHA instructions of x86. One stream waits for its own
 * last rounds most of the time; a second one fills the gaps. Without these instructions hash.c asks OpenSSL. */

#include "native.h"

#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define BLOCK 64
#define DIGEST 32
#define WITH_SHA __attribute__((target("sha,sse4.1,ssse3")))

static const uint32_t INITIAL[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const uint32_t ROUND[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* One chunk under way: `blocks` blocks at `next` are to be hashed, then what `phase` says. */
typedef struct {
    uint32_t state[8];
    const uint8_t *next;
    size_t blocks;
    enum { BODY, TAIL, OUTER, IDLE } phase;
    uint64_t bits; /* of the whole message, for its padding */
    size_t rest;   /* bytes of the chunk behind its whole blocks */
    uint8_t *out;
    uint8_t last[2 * BLOCK];
} stream_t;

bool can_hash_pairs(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* The words a..h as the instructions want them: two registers, ABEF and CDGH. */
WITH_SHA static inline void load_state(const uint32_t state[8], __m128i *abef, __m128i *cdgh)
{
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    *abef = _mm_alignr_epi8(low, high, 8);
    *cdgh = _mm_blend_epi16(high, low, 0xF0);
}

WITH_SHA static inline void store_state(uint32_t state[8], __m128i abef, __m128i cdgh)
{
    __m128i low = _mm_shuffle_epi32(abef, 0x1B), high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

/* Hashes `blocks` blocks of each of `streams` streams (1 or 2, known when this is inlined) at the same time. */
WITH_SHA static inline __attribute__((always_inline)) void compress(stream_t *stream[], int streams, size_t blocks)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i abef[2], cdgh[2];
    for (int s = 0; s < streams; s++)
        load_state(stream[s]->state, &abef[s], &cdgh[s]);
    for (size_t block = 0; block < blocks; block++) {
        __m128i word[2][4], abef_before[2], cdgh_before[2];
        for (int s = 0; s < streams; s++) {
            abef_before[s] = abef[s];
            cdgh_before[s] = cdgh[s];
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i constants = _mm_load_si128((const __m128i *)(ROUND + 4 * i));
#pragma GCC unroll 2
            for (int s = 0; s < streams; s++) {
                __m128i *w = word[s];
                if (i < 4) {
                    const __m128i *from = (const __m128i *)(stream[s]->next + block * BLOCK) + i;
                    w[i] = _mm_shuffle_epi8(_mm_loadu_si128(from), big_endian);
                } else { /* w[i % 4] is that of four groups ago */
                    __m128i before = w[(i + 3) % 4];
                    __m128i sum = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);
                    sum = _mm_add_epi32(sum, _mm_alignr_epi8(before, w[(i + 2) % 4], 4));
                    w[i % 4] = _mm_sha256msg2_epu32(sum, before);
                }
                __m128i keyed = _mm_add_epi32(w[i % 4], constants);
                cdgh[s] = _mm_sha256rnds2_epu32(cdgh[s], abef[s], keyed);
                abef[s] = _mm_sha256rnds2_epu32(abef[s], cdgh[s], _mm_shuffle_epi32(keyed, 0x0E));
            }
        }
        for (int s = 0; s < streams; s++) {
            abef[s] = _mm_add_epi32(abef[s], abef_before[s]);
            cdgh[s] = _mm_add_epi32(cdgh[s], cdgh_before[s]);
        }
    }
    for (int s = 0; s < streams; s++) {
        store_state(stream[s]->state, abef[s], cdgh[s]);
        stream[s]->next += blocks * BLOCK;
        stream[s]->blocks -= blocks;
    }
}

WITH_SHA static void compress_two(stream_t *one, stream_t *other)
{
    stream_t *both[2] = {one, other};
    compress(both, 2, one->blocks < other->blocks ? one->blocks : other->blocks);
}

WITH_SHA static void compress_one(stream_t *one)
{
    compress(&one, 1, one->blocks);
}

static void put_words(uint8_t *out, const uint32_t *words)
{
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(words[i]);
        memcpy(out + 4 * i, &word, 4);
    }
}

/* Makes `last` the `used` bytes that are there and the padding of a message of `bits` bits. */
static void pad(stream_t *stream, size_t used, uint64_t bits)
{
    size_t blocks = used + 9 > BLOCK ? 2 : 1;
    uint64_t length = __builtin_bswap64(bits);
    stream->last[used] = 0x80;
    memset(stream->last + used + 1, 0, blocks * BLOCK - used - 1);
    memcpy(stream->last + blocks * BLOCK - 8, &length, 8);
    stream->next = stream->last;
    stream->blocks = blocks;
}

static void begin(stream_t *stream, const uint32_t state[8], bool keyed, const uint8_t *chunk, size_t size, uint8_t *out)
{
    memcpy(stream->state, state, sizeof stream->state);
    stream->next = chunk;
    stream->blocks = size / BLOCK;
    stream->rest = size % BLOCK;
    stream->bits = 8 * ((uint64_t)size + (keyed ? BLOCK : 0));
    stream->out = out;
    stream->phase = BODY;
}

/* What follows when the blocks at hand are hashed: the tail, the outer hash of HMAC, or nothing. */
static void advance(stream_t *stream, const uint32_t *outer)
{
    if (stream->phase == BODY) {
        memcpy(stream->last, stream->next, stream->rest);
        pad(stream, stream->rest, stream->bits);
        stream->phase = TAIL;
    } else if (stream->phase == TAIL && outer) {
        put_words(stream->last, stream->state);
        memcpy(stream->state, outer, sizeof stream->state);
        pad(stream, DIGEST, 8 * (BLOCK + DIGEST));
        stream->phase = OUTER;
    } else {
        put_words(stream->out, stream->state);
        stream->phase = IDLE;
    }
}

/* The state after one block of key. */
static void state_after(uint32_t state[8], const uint8_t *block)
{
    stream_t stream = {.next = block, .blocks = 1};
    memcpy(stream.state, INITIAL, sizeof INITIAL);
    compress_one(&stream);
    memcpy(state, stream.state, sizeof stream.state);
}

/* `pads`: the inner and the outer key block of HMAC, or NULL for plain SHA-256. Chunks lie in the body. */
void hash_pairs(const uint8_t *pads, const uint8_t *body, const any_i64 *start, const any_u32 *length, size_t count,
                uint8_t *ids)
{
    uint32_t inner[8], outer[8];
    memcpy(inner, INITIAL, sizeof INITIAL);
    if (pads) {
        state_after(inner, pads);
        state_after(outer, pads + BLOCK);
    }
    stream_t stream[2] = {{.phase = IDLE}, {.phase = IDLE}};
    for (size_t at = 0;;) {
        for (int s = 0; s < 2; s++) {
            while (stream[s].phase != IDLE && !stream[s].blocks)
                advance(&stream[s], pads ? outer : NULL);
            if (stream[s].phase == IDLE && at < count) {
                begin(&stream[s], inner, pads != NULL, body + start[at], length[at], ids + at * DIGEST);
                at++;
                s--; /* it may have no whole block */
            }
        }
        bool first = stream[0].phase != IDLE, second = stream[1].phase != IDLE;
        if (first && second)
            compress_two(&stream[0], &stream[1]);
        else if (first || second)
            compress_one(&stream[first ? 0 : 1]);
        else
            break;
    }
    explicit_bzero(inner, sizeof inner);
    explicit_bzero(outer, sizeof outer);
    explicit_bzero(stream, sizeof stream);
}

#else

bool can_hash_pairs(void)
{
    return false;
}

void hash_pairs(const uint8_t *pads, const uint8_t *body, const any_i64 *start, const any_u32 *length, size_t count,
                uint8_t *ids)
{
}

#endif
