// A whole decode step of one token as one kernel, whose blocks stay on their processors from the first layer to the last.
//
// Each block owns the same rows of every matrix. One thread of it streams them, in the order in which they are needed, through a
// ring of shared memory and never waits for a result, so that memory is always read; the others multiply what has come. Between two
// matrices blocks send each other numbers through the L2 cache, in words of 8 bytes that hold a number and the layer that it is of:
// who needs a word reads it until that layer is there, and no block waits for all others at a barrier.
//
// In: weights where torch has them, a token's id, positions and place. Out: its keys and values in the cache, logits, the likeliest
// token. Compiled when it is first needed for one model's sizes, which are macros: LAYERS, HIDDEN, HEADS, SIZE (of a head),
// VOCABULARY, BLOCK_POSITIONS, INT8, HALF (float16 instead of bfloat16), ACTIVATION, EPSILON, BLOCKS, WARPS, and what follows of them
// in `one_kernel.py`. EMULATED leaves out what only a GPU has, which tests write in C++.

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#ifndef EMULATED
#define DEVICE __device__ __forceinline__
#define ENTRY extern "C" __global__ void __launch_bounds__((WARPS + 1) * 32, 1)
#define UNROLL _Pragma("unroll")
#define ONCE _Pragma("unroll 1")

DEVICE int thread_number() { return threadIdx.x; }
DEVICE int block_number() { return blockIdx.x; }

DEVICE char* shared_memory() {
    extern __shared__ __align__(128) char memory[];
    return memory;
}

DEVICE u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }
DEVICE void wait_for_block() { __syncthreads(); }
DEVICE void wait_for_readers() { asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory"); }
DEVICE void wait_for_warp() { __syncwarp(); }
DEVICE float from_lane(float value, int across) { return __shfl_xor_sync(~0u, value, across); }
DEVICE int from_lane(int value, int across) { return __shfl_xor_sync(~0u, value, across); }

DEVICE void read_words(const u64* at, u64& first, u64& second) {
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(first), "=l"(second) : "l"(at) : "memory");
}

DEVICE u64 read_word(const u64* at) {
    u64 word;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(word) : "l"(at) : "memory");
    return word;
}

DEVICE void write_word(u64* at, u64 word) { asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(word) : "memory"); }

DEVICE void gate_begin(u64* gate, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(gate)), "r"(arrivals) : "memory");
}

DEVICE void gates_begun() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

DEVICE void gate_arrive(u64* gate) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(gate)) : "memory"); }

DEVICE void gate_expect(u64* gate, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(gate)), "r"(bytes) : "memory");
}

DEVICE void gate_wait(u64* gate, u32 parity) {
    asm volatile(
        "{\n .reg .pred done;\n AGAIN:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n @!done bra AGAIN;\n}" ::"r"(shared_address(gate)),
        "r"(parity)
        : "memory");
}

// Weights are read once a step: they are not to drive from the L2 cache what blocks send each other.
DEVICE u64 read_once() {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// What is read again, by all blocks or in the next step.
DEVICE u64 read_often() {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

DEVICE void bring_near(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

DEVICE void fetch(char* to, const char* from, u32 bytes, u64* gate, u64 policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(gate)), "l"(policy)
                 : "memory");
}

DEVICE int dot4(int four, int other, int sum) { return __dp4a(four, other, sum); }

DEVICE float widen(u16 number) {
#if HALF
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(number));
    return value;
#else
    return __uint_as_float((u32)number << 16);
#endif
}

DEVICE u16 narrow(float value) {
    u16 number;
#if HALF
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(number) : "f"(value));
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(number) : "f"(value));
#endif
    return number;
}

DEVICE u32 bits(float value) { return __float_as_uint(value); }
DEVICE float number(u32 word) { return __uint_as_float(word); }
#endif

#ifdef STAMPS  // an address, for `benchmarks/bench_one_kernel.py`: when each block came where in each layer
#define STAMP(layer, place) \
    if (thread_number() == 0) ((u64*)STAMPS)[(block_number() * LAYERS + (layer)) * 16 + (place)] = clock64();
#else
#define STAMP(layer, place)
#endif

constexpr int THREADS = WARPS * 32;
constexpr int WEIGHT = INT8 ? 1 : 2;                                   // bytes
constexpr int PARTS = BLOCKS / HEADS < 8 ? BLOCKS / HEADS : 8;         // of the keys of a head, at most
constexpr int PART_WORDS = SIZE / 2 + 2;                               // what is sent of one: largest score, sum, context
constexpr int KEYS = SLOT / (4 * SIZE);                                // in a slot, with their values
constexpr int LANES = SIZE / 8;                                        // that read one key
constexpr int GROUPS = (VOCABULARY / 16 + BLOCKS - 1) / BLOCKS;        // of 16 rows of the LM head, at most, that a block has
constexpr int LONGEST = 4 * HIDDEN / BLOCKS > 8 * GROUPS ? 4 * HIDDEN / BLOCKS : 8 * GROUPS;  // rows of a block; the head takes twice
constexpr float NOTHING = -1e30f;                                      // a score below all others

// What is sent, in words. Each layer writes the same ones again: who writes has by then read what every block sent after it had read
// them, so that nobody still waits for what was there before (every block has rows of every matrix).
constexpr int MIXED = 0;
constexpr int PARTIAL = MIXED + 3 * HIDDEN / 2;
constexpr int MIDDLE = PARTIAL + HEADS * PARTS * PART_WORDS;
constexpr int WIDE = MIDDLE + HIDDEN;
constexpr int STREAM = WIDE + 2 * HIDDEN;
constexpr int BEST = STREAM + HIDDEN;
static_assert(BEST + 4 * BLOCKS == SENT);

// A layer's addresses in the table, and behind those of all layers the model's own.
enum { NORM1, OFFSET1, QKV, QKV_BIAS, QKV_SCALES, DENSE, DENSE_BIAS, DENSE_SCALES, NORM2, OFFSET2, UP, UP_BIAS, UP_SCALES, DOWN, DOWN_BIAS, DOWN_SCALES, CACHE_KEYS, CACHE_VALUES, OF_LAYER };
enum { WORDS, WORDS_SCALES, POSITIONS, BLOCK_TABLE, NORM3, OFFSET3, OF_MODEL };

constexpr int common(int one, int other) { return other == 0 ? one : common(other, one % other); }

// Which columns of a vector of K a thread has: `count` times `vector` side by side, of its warp's part of them.
template <int K>
struct Columns {
    static constexpr int each = K / THREADS;
    static constexpr int vector = common(each, 16 / WEIGHT);
    static constexpr int count = each / vector;
    static DEVICE int at(int i) {
        const int warp = thread_number() / 32, lane = thread_number() % 32;
        return warp * (K / WARPS) + (i * 32 + lane) * vector;
    }
};

// Rows that are added up together, of R, and those of them that share a slot.
template <int K, int R>
struct Tiling {
    static constexpr int group = common(R, K / THREADS > 32 ? 4 : K / THREADS > 16 ? 8 : 16);
    static constexpr int rows = common(group, SLOT / (K * WEIGHT));
    static_assert(rows > 0, "a row is longer than a slot");
};

struct Memory {
    char ring[SLOTS][SLOT];
    float sums[2][WARPS][LONGEST];
    float context[WARPS][SIZE + 2];
    float shared[4][WARPS][2];
    u64 full[SLOTS], empty[SLOTS];
    u64 table[LAYERS * OF_LAYER + OF_MODEL];
};

static_assert(sizeof(Memory) <= SHARED);

// What a thread knows of the ring: how many slots it has seen.
struct Ring {
    Memory& memory;
    u32 seen = 0;

    DEVICE explicit Ring(Memory& memory) : memory(memory) {}

    DEVICE const char* wait() {
        gate_wait(&memory.full[seen % SLOTS], seen / SLOTS & 1);
        return memory.ring[seen % SLOTS];
    }
    DEVICE void release() {
        wait_for_warp();
        if (thread_number() % 32 == 0) gate_arrive(&memory.empty[seen % SLOTS]);
        seen++;
    }
    DEVICE char* begin(u32 bytes) {
        const u32 slot = seen % SLOTS;
        gate_wait(&memory.empty[slot], (seen / SLOTS & 1) ^ 1);
        gate_expect(&memory.full[slot], bytes);
        return memory.ring[slot];
    }
    DEVICE void bring(char* to, const char* from, u32 bytes, u64 policy) { fetch(to, from, bytes, &memory.full[seen % SLOTS], policy); }
};

DEVICE float rounded(float value) { return widen(narrow(value)); }
DEVICE u32 pair(float first, float second) { return narrow(first) | (u32)narrow(second) << 16; }
DEVICE float low(u32 two) { return widen((u16)two); }
DEVICE float high(u32 two) { return widen((u16)(two >> 16)); }
// Number i of some words that hold two each.
DEVICE float half_of(const u32* words, int i) { return i % 2 ? high(words[i / 2]) : low(words[i / 2]); }
DEVICE u64 word(u32 number, u32 tag) { return number | (u64)tag << 32; }

DEVICE float activated(float value) {
    if (ACTIVATION == 1) return 0.5f * value * (1.0f + erff(value * 0.7071067811865476f));
    if (ACTIVATION == 2) {
        const float inner = 0.7978845608028654f * (value + 0.044715f * value * value * value);
        return value / (1.0f + expf(-2.0f * inner));  // tanh(y) = 2 sigmoid(2 y) - 1
    }
    if (ACTIVATION == 3) return fmaxf(value, 0.0f);
    return value;
}

// Reads N words; whether all have the tag. Who waits reads all that it waits for again, so that all are on their way together.
template <int N>
DEVICE bool arrived(const u64* at, u32 tag, u32 (&out)[N]) {
    bool all = true;
    if constexpr (N % 2 == 0) {
        UNROLL for (int i = 0; i < N; i += 2) {
            u64 first, second;
            read_words(at + i, first, second);
            out[i] = (u32)first;
            out[i + 1] = (u32)second;
            all &= (u32)(first >> 32) == tag & (u32)(second >> 32) == tag;
        }
    } else {
        UNROLL for (int i = 0; i < N; i++) {
            const u64 one = read_word(at + i);
            out[i] = (u32)one;
            all &= (u32)(one >> 32) == tag;
        }
    }
    return all;
}

// A thread's columns of a vector that was sent as one number a word.
template <int K>
DEVICE void receive(const u64* sent, u32 tag, float (&x)[Columns<K>::each]) {
    using C = Columns<K>;
    u32 words[C::count][C::vector];
    bool all;
    do {
        all = true;
        UNROLL for (int i = 0; i < C::count; i++) all &= arrived(sent + C::at(i), tag, words[i]);
    } while (!all);
    UNROLL for (int i = 0; i < C::each; i++) x[i] = number(words[i / C::vector][i % C::vector]);
}

// As two a word.
template <int K>
DEVICE void receive_pairs(const u64* sent, u32 tag, float (&x)[Columns<K>::each]) {
    using C = Columns<K>;
    u32 words[C::count][C::vector / 2];
    bool all;
    do {
        all = true;
        UNROLL for (int i = 0; i < C::count; i++) all &= arrived(sent + C::at(i) / 2, tag, words[i]);
    } while (!all);
    UNROLL for (int i = 0; i < C::each; i++) x[i] = half_of(words[i / C::vector], i % C::vector);
}

// A thread's columns of the context, out of the parts of the keys that were attended to.
DEVICE void receive_context(const u64* sent, u32 tag, int parts, float (&x)[Columns<HIDDEN>::each]) {
    using C = Columns<HIDDEN>;
    u32 most[C::count][PARTS][2], words[C::count][PARTS][C::vector / 2];
    bool all;
    do {
        all = true;
        UNROLL for (int i = 0; i < C::count; i++) {
            const int column = C::at(i);
            UNROLL for (int part = 0; part < PARTS; part++) {
                if (part < parts) {
                    const u64* from = sent + (column / SIZE * PARTS + part) * PART_WORDS;
                    all &= arrived(from, tag, most[i][part]);
                    all &= arrived(from + 2 + column % SIZE / 2, tag, words[i][part]);
                }
            }
        }
    } while (!all);
    UNROLL for (int i = 0; i < C::count; i++) {
        float best = NOTHING, total = 0;
        float sum[C::vector] = {};
        UNROLL for (int part = 0; part < PARTS; part++)
            if (part < parts) best = fmaxf(best, number(most[i][part][0]));
        UNROLL for (int part = 0; part < PARTS; part++) {
            if (part < parts) {
                const float weight = number(most[i][part][1]) * expf(number(most[i][part][0]) - best);
                total += weight;
                UNROLL for (int j = 0; j < C::vector; j++) sum[j] += weight * half_of(words[i][part], j);
            }
        }
        UNROLL for (int j = 0; j < C::vector; j++) x[i * C::vector + j] = rounded(sum[j] / total);
    }
}

// A thread's columns of a vector of the model, fetched before they are needed.
template <int K>
struct Vector {
    float at[Columns<K>::each];

    DEVICE explicit Vector(const u16* from) {
        using C = Columns<K>;
        UNROLL for (int i = 0; i < C::each; i++) at[i] = widen(from[C::at(i / C::vector) + i % C::vector]);
    }
};

// (x - mean) / deviation · gain + offset, in 16 bits, as LayerNorm stores it. Means and squares are joined pair by pair (Chan et al., 1979).
template <int K>
DEVICE void normalise(float (&x)[Columns<K>::each], const Vector<K>& gain, const Vector<K>& offset, float (*shared)[2]) {
    constexpr int EACH = Columns<K>::each;
    float mean = 0, squares = 0;
    UNROLL for (int i = 0; i < EACH; i++) mean += x[i];
    mean /= EACH;
    UNROLL for (int i = 0; i < EACH; i++) squares += (x[i] - mean) * (x[i] - mean);
    float count = EACH;
    UNROLL for (int across = 1; across < 32; across *= 2) {
        const float other = from_lane(mean, across), apart = other - mean;
        squares += from_lane(squares, across) + apart * apart * count * 0.5f;
        mean = (mean + other) * 0.5f;
        count *= 2;
    }
    if (thread_number() % 32 == 0) {
        shared[thread_number() / 32][0] = mean;
        shared[thread_number() / 32][1] = squares;
    }
    wait_for_readers();
    float middle = 0, all = 0;
    UNROLL for (int i = 0; i < WARPS; i++) middle += shared[i][0];
    middle /= WARPS;
    UNROLL for (int i = 0; i < WARPS; i++) {
        const float apart = shared[i][0] - middle;
        all += shared[i][1] + apart * apart * (K / WARPS);
    }
    const float scale = rsqrtf(all / K + EPSILON);
    UNROLL for (int i = 0; i < EACH; i++) x[i] = rounded((x[i] - middle) * scale * gain.at[i] + offset.at[i]);
}

// A thread's columns as matrices take them: numbers, or for weights of 8 bits, whole numbers of 16 bits beside the largest, two of 8 each.
template <int K>
struct Operand {
    static constexpr int EACH = Columns<K>::each;
    float value[INT8 ? 1 : EACH];
    int highs[INT8 ? EACH / 4 : 1], lows[INT8 ? EACH / 4 : 1];
    float unit = 1;

    DEVICE Operand(const float (&x)[EACH], float (*shared)[2]) {
        if constexpr (!INT8) {
            UNROLL for (int i = 0; i < EACH; i++) value[i] = x[i];
        } else {
            float most = 0;
            UNROLL for (int i = 0; i < EACH; i++) most = fmaxf(most, fabsf(x[i]));
            UNROLL for (int across = 1; across < 32; across *= 2) most = fmaxf(most, from_lane(most, across));
            if (thread_number() % 32 == 0) shared[thread_number() / 32][0] = most;
            wait_for_readers();
            UNROLL for (int i = 0; i < WARPS; i++) most = fmaxf(most, shared[i][0]);
            unit = most / 32500.0f;
            const float by = unit > 0 ? 1.0f / unit : 0.0f;
            UNROLL for (int i = 0; i < EACH / 4; i++) {
                highs[i] = lows[i] = 0;
                UNROLL for (int j = 0; j < 4; j++) {
                    const int steps = (int)floorf(x[4 * i + j] * by + 0.5f);
                    const int upper = (steps + 128) >> 8;
                    highs[i] |= (upper & 255) << 8 * j;
                    lows[i] |= (steps - (upper << 8) & 255) << 8 * j;
                }
            }
        }
    }

    // Its products with a row, added up.
    DEVICE float dot(const char* row) const {
        using C = Columns<K>;
        constexpr int SPAN = C::vector * WEIGHT / 4;  // words
        float sum = 0;
        int upper = 0, lower = 0;
        UNROLL for (int i = 0; i < C::count; i++) {
            u32 some[SPAN];
            const char* from = row + C::at(i) * WEIGHT;
            if constexpr (SPAN == 4) {
                const uint4 four = *(const uint4*)from;
                some[0] = four.x, some[1] = four.y, some[2] = four.z, some[3] = four.w;
            } else if constexpr (SPAN == 2) {
                const uint2 two = *(const uint2*)from;
                some[0] = two.x, some[1] = two.y;
            } else {
                some[0] = *(const u32*)from;
            }
            UNROLL for (int j = 0; j < SPAN; j++) {
                if constexpr (INT8) {
                    upper = dot4((int)some[j], highs[i * SPAN + j], upper);
                    lower = dot4((int)some[j], lows[i * SPAN + j], lower);
                } else {
                    sum += low(some[j]) * value[2 * (i * SPAN + j)];
                    sum += high(some[j]) * value[2 * (i * SPAN + j) + 1];
                }
            }
        }
        return INT8 ? (upper * 256.0f + lower) * unit : sum;
    }
};

// Adds up N numbers of each lane over a warp; lane l returns the sum of number l / (32 / N).
template <int N>
DEVICE float gathered(float (&sums)[N]) {
    int left = N;
    UNROLL for (int across = 16; across; across /= 2) {
        if (left > 1) {
            left /= 2;
            const bool upper = thread_number() & across;
            UNROLL for (int i = 0; i < N / 2; i++) {
                if (i < left) {
                    const float sent = upper ? sums[i] : sums[i + left];
                    const float kept = upper ? sums[i + left] : sums[i];
                    sums[i] = kept + from_lane(sent, across);
                }
            }
        } else {
            sums[0] += from_lane(sums[0], across);
        }
    }
    return sums[0];
}

// Multiplies the next rows that come through the ring; each warp leaves its columns' share of a row's product.
template <int K, int GROUP, int ROWS>
DEVICE void multiply(const Operand<K>& x, Ring& ring, float* sums) {
    float total[GROUP];
    UNROLL for (int first = 0; first < GROUP; first += ROWS) {
        const char* rows = ring.wait();
        UNROLL for (int i = 0; i < ROWS; i++) total[first + i] = x.dot(rows + i * K * WEIGHT);
        ring.release();
    }
    const float sum = gathered(total);
    const int lane = thread_number() % 32;
    if (lane % (32 / GROUP) == 0) sums[lane / (32 / GROUP)] = sum;
}

template <int K, int R>
DEVICE void multiply_all(const Operand<K>& x, Ring& ring, float* sums) {
    using T = Tiling<K, R>;
    float* own = sums + thread_number() / 32 * LONGEST;
    ONCE for (int first = 0; first < R; first += T::group) multiply<K, T::group, T::rows>(x, ring, own + first);
    wait_for_readers();
}

// A row's product, of which each warp has left a share.
DEVICE float product(const float* sums, int row, int pitch = LONGEST) {
    float sum = 0;
    UNROLL for (int i = 0; i < WARPS; i++) sum += sums[i * pitch + row];
    return sum;
}

// Of R rows those that a thread completes, EACH side by side, with what is fetched before it is needed.
template <int R, int EACH>
struct Rows {
    static_assert(R / EACH <= THREADS);
    float bias[EACH], scale[EACH];

    DEVICE bool has() const { return thread_number() < R / EACH; }

    DEVICE Rows(u64 biases, u64 scales) {
        UNROLL for (int i = 0; i < EACH; i++) {
            const int row = block_number() * R + thread_number() * EACH + i;
            if (has()) bias[i] = widen(((const u16*)biases)[row]);
            if (INT8 && has()) scale[i] = ((const float*)scales)[row];
        }
    }

    DEVICE float completed(const float* sums, int i) const { return product(sums, thread_number() * EACH + i) * (INT8 ? scale[i] : 1.0f) + bias[i]; }

    DEVICE void send(u64* to, const float (&values)[EACH], u32 tag) const {
        static_assert(EACH == 2);
        write_word(to + block_number() * (R / 2) + thread_number(), word(pair(values[0], values[1]), tag));
    }
};

// Streams part `index` of a matrix's rows, of R each: a block's own.
template <int K, int R>
DEVICE void stream(u64 matrix, int index, Ring& ring, u64 policy) {
    constexpr u32 BYTES = Tiling<K, R>::rows * K * WEIGHT;
    const char* from = (const char*)matrix + (u64)index * R * K * WEIGHT;
    ONCE for (int first = 0; first < R; first += Tiling<K, R>::rows, from += BYTES, ring.seen++) ring.bring(ring.begin(BYTES), from, BYTES, policy);
}

// Which keys a block attends to: those of one head, or of a part of them where there are many.
struct Share {
    int head, part, parts, first, count;

    DEVICE explicit Share(int place) {
        constexpr int OF_HEAD = BLOCKS / HEADS;
        head = block_number() / OF_HEAD;
        part = block_number() % OF_HEAD;
        parts = (place + 63) / 64;
        parts = parts < 1 ? 1 : parts > PARTS ? PARTS : parts;
        const int each = (place + parts - 1) / parts;
        first = part * each;
        count = part >= parts || first >= place ? 0 : place - first < each ? place - first : each;
    }
};

// Joins what two lanes know of different keys.
DEVICE void join(float& best, float& total, float (&context)[8], int across) {
    const float other = from_lane(best, across), most = fmaxf(best, other);
    const float kept = expf(best - most), added = expf(other - most);
    total = total * kept + from_lane(total, across) * added;
    UNROLL for (int i = 0; i < 8; i++) context[i] = context[i] * kept + from_lane(context[i], across) * added;
    best = most;
}

DEVICE void attend(const Share& share, u64* mail, u32 tag, Ring& ring, Memory& memory, u16* new_key, u16* new_value) {
    const int lane = thread_number() % 32, warp = thread_number() / 32;
    const int dims = lane % LANES * 8, inner = lane / LANES;
    constexpr int AT_ONCE = WARPS * (32 / LANES);
    const u64* own = mail + MIXED + (share.head * SIZE + dims) / 2;
    u32 query[4], key[4], value[4];
    const bool has_own = share.part == 0 && warp == 0;
    bool all;
    do {
        all = arrived(own, tag, query);
        if (has_own) {
            all &= arrived(own + HIDDEN / 2, tag, key);
            all &= arrived(own + HIDDEN, tag, value);
        }
    } while (!all);
    STAMP((int)((tag - 1) % LAYERS), 4)
    float wanted[8], context[8] = {};
    const float scale = rsqrtf((float)SIZE);
    UNROLL for (int i = 0; i < 8; i++) wanted[i] = half_of(query, i) * scale;
    float best = NOTHING, total = 0;
    if (has_own) {  // the token itself, once
        float score = 0;
        UNROLL for (int i = 0; i < 8; i++) score += wanted[i] * half_of(key, i);
        UNROLL for (int across = 1; across < LANES; across *= 2) score += from_lane(score, across);
        if (inner == 0) {
            best = score;
            total = 1;
            UNROLL for (int i = 0; i < 8; i++) {
                context[i] = half_of(value, i);
                new_key[dims + i] = (u16)(key[i / 2] >> 16 * (i % 2));
                new_value[dims + i] = (u16)(value[i / 2] >> 16 * (i % 2));
            }
        }
    }
    ONCE for (int first = 0; first < share.count; first += KEYS) {
        const char* slot = ring.wait();
        const int count = share.count - first < KEYS ? share.count - first : KEYS;
        ONCE for (int begin = 0; begin < count; begin += AT_ONCE) {
            const int at = begin + warp * (32 / LANES) + inner;
            const bool is_key = at < count;
            uint4 four = {0, 0, 0, 0}, values = {0, 0, 0, 0};
            if (is_key) {
                four = *(const uint4*)(slot + (at * SIZE + dims) * 2);
                values = *(const uint4*)(slot + ((KEYS + at) * SIZE + dims) * 2);
            }
            float score = low(four.x) * wanted[0] + high(four.x) * wanted[1] + low(four.y) * wanted[2] + high(four.y) * wanted[3];
            score += low(four.z) * wanted[4] + high(four.z) * wanted[5] + low(four.w) * wanted[6] + high(four.w) * wanted[7];
            UNROLL for (int across = 1; across < LANES; across *= 2) score += from_lane(score, across);
            score = is_key ? score : NOTHING;
            const float most = fmaxf(best, score), kept = expf(best - most);
            const float weight = is_key ? expf(score - most) : 0.0f;
            total = total * kept + weight;
            const u32 words[4] = {values.x, values.y, values.z, values.w};
            UNROLL for (int i = 0; i < 8; i++) context[i] = context[i] * kept + weight * half_of(words, i);
            best = most;
        }
        ring.release();
    }
    UNROLL for (int across = LANES; across < 32; across *= 2) join(best, total, context, across);
    if (inner == 0) {
        UNROLL for (int i = 0; i < 8; i++) memory.context[warp][2 + dims + i] = context[i];
        if (dims == 0) {
            memory.context[warp][0] = best;
            memory.context[warp][1] = total;
        }
    }
    wait_for_readers();
    if (thread_number() < SIZE / 2) {
        float most = NOTHING, sum = 0, first = 0, second = 0;
        UNROLL for (int i = 0; i < WARPS; i++) most = fmaxf(most, memory.context[i][0]);
        UNROLL for (int i = 0; i < WARPS; i++) {
            const float weight = expf(memory.context[i][0] - most);
            sum += weight * memory.context[i][1];
            first += weight * memory.context[i][2 + 2 * thread_number()];
            second += weight * memory.context[i][3 + 2 * thread_number()];
        }
        u64* to = mail + PARTIAL + (share.head * PARTS + share.part) * PART_WORDS;
        write_word(to + 2 + thread_number(), word(pair(first / sum, second / sum), tag));
        if (thread_number() == 0) {
            write_word(to, word(bits(most), tag));
            write_word(to + 1, word(bits(sum), tag));
        }
    }
}

// A token, of those whose logits a block computes.
DEVICE int token_of(int at) { return (at / 16 * BLOCKS + block_number()) * 16 + at % 16; }

// The likelier of two tokens; among equals the first.
DEVICE void choose(float& best, float& total, int& token, float other, float more, int rival) {
    const float most = fmaxf(best, other);
    total = total * expf(best - most) + more * expf(other - most);
    if (other > best || (other == best && rival < token)) token = rival;
    best = most;
}

// Of those that the lanes of a warp know.
DEVICE void choose_of_warp(float& best, float& total, int& token) {
    UNROLL for (int across = 1; across < 32; across *= 2)
        choose(best, total, token, from_lane(best, across), from_lane(total, across), from_lane(token, across));
}

struct Arguments {
    const u64* table;                // addresses
    const long long* inputs;         // id (below 0 for the token that the step before chose), position, block position, row of the cache, place in it, row of `barred`
    const unsigned char* barred;     // [M, V]
    u64* mail;                       // what blocks send each other; zeros at first
    u32* epoch;                      // steps that were done
    u16* logits;                     // [V]
    double* out;                     // the likeliest token and its log-probability
    long long row_stride, head_stride;  // of the cache, in numbers
};

// Brings a block's part of vectors of N into the L2 cache, before all blocks need them.
template <int N>
DEVICE void bring_beside(const u64* layer, int one, int other, int scales) {
    const u64 at = (u64)block_number() * (N / BLOCKS);
    bring_near((const u16*)layer[one] + at);
    if (other) bring_near((const u16*)layer[other] + at);
    if (INT8 && scales) bring_near((const float*)layer[scales] + at);
}

DEVICE void stream_all(const Arguments& given, Memory& memory) {
    Ring ring(memory);
    const u64 policy = read_once(), often = read_often();
    const long long row = given.inputs[3];
    const int block = block_number();
    const Share share((int)given.inputs[4]);
    const u64* layer = memory.table;
    ONCE for (int index = 0; index < LAYERS; index++, layer += OF_LAYER) {
        bring_beside<HIDDEN>(layer, NORM1, OFFSET1, 0);
        bring_beside<HIDDEN>(layer, NORM2, OFFSET2, 0);
        bring_beside<3 * HIDDEN>(layer, QKV_BIAS, 0, QKV_SCALES);
        bring_beside<HIDDEN>(layer, DENSE_BIAS, 0, DENSE_SCALES);
        bring_beside<4 * HIDDEN>(layer, UP_BIAS, 0, UP_SCALES);
        bring_beside<HIDDEN>(layer, DOWN_BIAS, 0, DOWN_SCALES);
        stream<HIDDEN, 3 * HIDDEN / BLOCKS>(layer[QKV], block, ring, policy);
        const long long begin = row * given.row_stride + share.head * given.head_stride + share.first * SIZE;
        const char *keys = (const char*)layer[CACHE_KEYS] + 2 * begin, *values = (const char*)layer[CACHE_VALUES] + 2 * begin;
        ONCE for (int first = 0; first < share.count; first += KEYS) {
            const u32 bytes = 2 * SIZE * (share.count - first < KEYS ? share.count - first : KEYS);
            char* to = ring.begin(2 * bytes);
            ring.bring(to, keys + 2 * SIZE * first, bytes, often);
            ring.bring(to + 2 * SIZE * KEYS, values + 2 * SIZE * first, bytes, often);
            ring.seen++;
        }
        stream<HIDDEN, HIDDEN / BLOCKS>(layer[DENSE], block, ring, policy);
        stream<HIDDEN, 4 * HIDDEN / BLOCKS>(layer[UP], block, ring, policy);
        stream<4 * HIDDEN, HIDDEN / BLOCKS>(layer[DOWN], block, ring, policy);
    }
    ONCE for (int group = block; group < VOCABULARY / 16; group += BLOCKS) stream<HIDDEN, 16>(layer[WORDS], group, ring, policy);
}

DEVICE void compute_all(const Arguments& given, Memory& memory) {
    Ring ring(memory);
    const int thread = thread_number(), block = block_number();
    constexpr int OWN = HIDDEN / BLOCKS;
    u64* const mail = given.mail;
    const u32 epoch = *(volatile u32*)given.epoch;
    u32 tag = epoch * LAYERS;
    const int place = (int)given.inputs[4];
    const Share share(place);
    const u64* layer = memory.table;
    const u64* model = memory.table + LAYERS * OF_LAYER;
    using C = Columns<HIDDEN>;
    float x[C::each];

    const long long id = given.inputs[0] < 0 ? (long long)given.out[0] : given.inputs[0], position = given.inputs[1], blank = given.inputs[2];
    auto embedded = [&](int column) {
        float sum;
        if constexpr (INT8)
            sum = ((const signed char*)model[WORDS])[id * HIDDEN + column] * ((const float*)model[WORDS_SCALES])[id];
        else
            sum = widen(((const u16*)model[WORDS])[id * HIDDEN + column]);
        sum += widen(((const u16*)model[POSITIONS])[position * HIDDEN + column]);
        if (BLOCK_POSITIONS) sum += widen(((const u16*)model[BLOCK_TABLE])[blank * HIDDEN + column]);
        return sum;
    };
    UNROLL for (int i = 0; i < C::each; i++) x[i] = embedded(C::at(i / C::vector) + i % C::vector);
    float residual = thread < OWN ? embedded(block * OWN + thread) : 0.0f;
    auto add = [&](float value, int to) {
        residual += value;
        write_word(mail + to + block * OWN + thread, word(bits(residual), tag));
    };

    ONCE for (int index = 0; index < LAYERS; index++, layer += OF_LAYER) {
        {
            constexpr int R = 3 * HIDDEN / BLOCKS;
            const Vector<HIDDEN> gain((const u16*)layer[NORM1]), offset((const u16*)layer[OFFSET1]);
            const Rows<R, 2> rows(layer[QKV_BIAS], layer[QKV_SCALES]);
            if (index) receive<HIDDEN>(mail + STREAM, tag, x);
            STAMP(index, 0)
            tag++;
            normalise<HIDDEN>(x, gain, offset, memory.shared[0]);
            STAMP(index, 1)
            float* sums = memory.sums[0][0];
            const Operand<HIDDEN> operand(x, memory.shared[1]);
            multiply_all<HIDDEN, R>(operand, ring, sums);
            STAMP(index, 2)
            if (rows.has()) rows.send(mail + MIXED, {rows.completed(sums, 0), rows.completed(sums, 1)}, tag);
            STAMP(index, 3)
        }
        if (share.part < share.parts) {
            const long long at = given.inputs[3] * given.row_stride + share.head * given.head_stride + (long long)place * SIZE;
            attend(share, mail, tag, ring, memory, (u16*)layer[CACHE_KEYS] + at, (u16*)layer[CACHE_VALUES] + at);
        }
        {
            float* sums = memory.sums[1][0];
            const Rows<OWN, 1> rows(layer[DENSE_BIAS], layer[DENSE_SCALES]);
            STAMP(index, 5)
            receive_context(mail + PARTIAL, tag, share.parts, x);
            STAMP(index, 6)
            const Operand<HIDDEN> operand(x, memory.shared[2]);
            multiply_all<HIDDEN, OWN>(operand, ring, sums);
            STAMP(index, 7)
            if (rows.has()) add(rows.completed(sums, 0), MIDDLE);
        }
        {
            constexpr int R = 4 * HIDDEN / BLOCKS;
            const Vector<HIDDEN> gain((const u16*)layer[NORM2]), offset((const u16*)layer[OFFSET2]);
            const Rows<R, 2> rows(layer[UP_BIAS], layer[UP_SCALES]);
            receive<HIDDEN>(mail + MIDDLE, tag, x);
            STAMP(index, 8)
            normalise<HIDDEN>(x, gain, offset, memory.shared[0]);
            STAMP(index, 9)
            float* sums = memory.sums[0][0];
            const Operand<HIDDEN> operand(x, memory.shared[1]);
            multiply_all<HIDDEN, R>(operand, ring, sums);
            STAMP(index, 10)
            if (rows.has()) rows.send(mail + WIDE, {activated(rows.completed(sums, 0)), activated(rows.completed(sums, 1))}, tag);
        }
        {
            float* sums = memory.sums[1][0];
            float wide[Columns<4 * HIDDEN>::each];
            const Rows<OWN, 1> rows(layer[DOWN_BIAS], layer[DOWN_SCALES]);
            receive_pairs<4 * HIDDEN>(mail + WIDE, tag, wide);
            STAMP(index, 11)
            const Operand<4 * HIDDEN> operand(wide, memory.shared[3]);
            multiply_all<4 * HIDDEN, OWN>(operand, ring, sums);
            STAMP(index, 12)
            if (rows.has()) add(rows.completed(sums, 0), STREAM);
        }
    }

    constexpr int MOST = (16 * GROUPS + THREADS - 1) / THREADS;  // tokens of a thread
    const Vector<HIDDEN> gain((const u16*)model[NORM3]), offset((const u16*)model[OFFSET3]);
    const int groups = (VOCABULARY / 16 - block + BLOCKS - 1) / BLOCKS;
    const unsigned char* barred = given.barred + given.inputs[5] * VOCABULARY;
    bool may[MOST];
    float scales[MOST];
    UNROLL for (int i = 0; i < MOST; i++) {
        const int at = i * THREADS + thread;
        may[i] = at < 16 * groups && !barred[token_of(at)];
        scales[i] = INT8 && at < 16 * groups ? ((const float*)model[WORDS_SCALES])[token_of(at)] : 1.0f;
    }
    receive<HIDDEN>(mail + STREAM, tag, x);
    normalise<HIDDEN>(x, gain, offset, memory.shared[0]);
    const Operand<HIDDEN> operand(x, memory.shared[1]);
    float* sums = memory.sums[0][0];
    using T = Tiling<HIDDEN, 16>;
    ONCE for (int first = 0; first < 16 * groups; first += T::group)
        multiply<HIDDEN, T::group, T::rows>(operand, ring, sums + thread / 32 * 2 * LONGEST + first);
    wait_for_readers();
    float best = NOTHING, total = 0;
    int token = VOCABULARY;
    UNROLL for (int i = 0; i < MOST; i++) {
        const int at = i * THREADS + thread;
        if (at < 16 * groups) {
            const u16 logit = narrow(product(sums, at, 2 * LONGEST) * scales[i]);
            given.logits[token_of(at)] = logit;
            if (may[i]) choose(best, total, token, widen(logit), 1.0f, token_of(at));
        }
    }
    choose_of_warp(best, total, token);
    if (thread % 32 == 0) {
        memory.context[thread / 32][0] = best;
        memory.context[thread / 32][1] = total;
        memory.context[thread / 32][2] = number((u32)token);
    }
    wait_for_readers();
    if (thread == 0) {
        ONCE for (int i = 1; i < WARPS; i++)
            choose(best, total, token, memory.context[i][0], memory.context[i][1], (int)bits(memory.context[i][2]));
        u64* to = mail + BEST + 4 * block;
        write_word(to, word(bits(best), tag));
        write_word(to + 1, word(bits(total), tag));
        write_word(to + 2, word((u32)token, tag));
        write_word(to + 3, word(0, tag));
    }
    if (block == 0 && thread < 32) {  // among what blocks have found
        best = NOTHING, total = 0, token = VOCABULARY;
        ONCE for (int i = thread; i < BLOCKS; i += 32) {
            u32 words[4];
            while (!arrived(mail + BEST + 4 * i, tag, words)) {
            }
            choose(best, total, token, number(words[0]), number(words[1]), (int)words[2]);
        }
        choose_of_warp(best, total, token);
        if (thread == 0) {
            given.out[0] = token < VOCABULARY ? token : 0;
            given.out[1] = token < VOCABULARY ? -logf(total) : number(0x7f800000u);
            *given.epoch = epoch + 1;  // all blocks have read it: their numbers are here
        }
    }
}

ENTRY glmkit_step(const Arguments given) {
    Memory& memory = *(Memory*)shared_memory();
    ONCE for (int i = thread_number(); i < LAYERS * OF_LAYER + OF_MODEL; i += THREADS + 32) memory.table[i] = given.table[i];
    if (thread_number() == 0) {
        for (int i = 0; i < SLOTS; i++) {
            gate_begin(&memory.full[i], 1);
            gate_begin(&memory.empty[i], WARPS);
        }
        gates_begun();
    }
    wait_for_block();
    if (thread_number() < THREADS)
        compute_all(given, memory);
    else if (thread_number() == THREADS)
        stream_all(given, memory);
}
