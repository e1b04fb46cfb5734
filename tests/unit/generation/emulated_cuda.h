// What `one_kernel.cu` needs of a GPU, in C++: every thread of every block is a fiber, and one runs at a time, in an order that a seed
// decides. Copies arrive late. A wait that nothing can end is an error, as are copies that leave the ring or are not aligned.

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#define DEVICE inline
#define UNROLL
#define ONCE
#define ENTRY extern "C" void

struct uint2 {
    u32 x, y;
};
struct uint4 {
    u32 x, y, z, w;
};

constexpr int OF_BLOCK = (WARPS + 1) * 32;

struct Copy {
    char* to;
    const char* from;
    u32 bytes;
    u64* gate;
};

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
    int of_warp = 0, of_readers = 0, of_block = 0;  // barriers passed
};

static std::vector<Fiber> fibers;
static std::vector<std::vector<char>> memories;
static std::vector<Copy> copies;
static std::vector<u32> exchanged[2];
static std::mt19937 dice;
static ucontext_t scheduler;
static int running;
static long waited;  // switches since anything happened
static const char* trouble;

static int thread_number() { return running % OF_BLOCK; }
static int block_number() { return running / OF_BLOCK; }
static char* shared_memory() { return memories[block_number()].data(); }

static void give_way() {
    waited++;
    swapcontext(&fibers[running].context, &scheduler);
}

static void fail(const char* why) {
    trouble = why;
    swapcontext(&fibers[running].context, &scheduler);
}

// Waits for the fibers from `first` to have passed as many barriers of a kind.
static void meet(int Fiber::* kind, int first, int count) {
    const int passed = ++(fibers[running].*kind);
    waited = 0;
    for (int i = first; i < first + count; i++)
        while (fibers[i].*kind < passed) give_way();
}

static int begin_of_block() { return block_number() * OF_BLOCK; }
static int begin_of_warp() { return running / 32 * 32; }
static void wait_for_block() { meet(&Fiber::of_block, begin_of_block(), OF_BLOCK); }
static void wait_for_readers() { meet(&Fiber::of_readers, begin_of_block(), WARPS * 32); }
static void wait_for_warp() { meet(&Fiber::of_warp, begin_of_warp(), 32); }

static u32 swapped(u32 word, int across) {
    auto& words = exchanged[fibers[running].of_warp % 2];
    words[running] = word;
    wait_for_warp();
    return words[begin_of_warp() + ((running % 32) ^ across)];
}

static u32 bits(float value) {
    u32 word;
    memcpy(&word, &value, 4);
    return word;
}

static float number(u32 word) {
    float value;
    memcpy(&value, &word, 4);
    return value;
}

static float from_lane(float value, int across) { return number(swapped(bits(value), across)); }
static int from_lane(int value, int across) { return (int)swapped((u32)value, across); }

static u64 read_word(const u64* at) {
    give_way();
    return *at;
}

static void read_words(const u64* at, u64& first, u64& second) {
    if ((uintptr_t)at % 16) fail("two words are read that are not aligned");
    first = read_word(at);
    second = at[1];
}

static void write_word(u64* at, u64 word) {
    waited = 0;
    *at = word;
}

// A gate: arrivals expected and left, bytes under way, and the parity of the phase that is not complete.
struct Gate {
    u64 count : 12, left : 12, bytes : 32, parity : 1;
};

static_assert(sizeof(Gate) == 8);
static Gate& gate_at(u64* at) { return *(Gate*)at; }

static void gate_begin(u64* at, int arrivals) { gate_at(at) = {(u64)arrivals, (u64)arrivals, 0, 0}; }
static void gates_begun() {}

static void complete(Gate& gate) {
    waited = 0;
    if (gate.left || gate.bytes) return;
    gate.parity ^= 1;
    gate.left = gate.count;
}

static void gate_arrive(u64* at) {
    Gate& gate = gate_at(at);
    if (!gate.left) fail("more arrive at a gate than were expected");
    gate.left--;
    complete(gate);
}

static void gate_expect(u64* at, u32 bytes) {
    gate_at(at).bytes += bytes;
    gate_arrive(at);
}

static void gate_wait(u64* at, u32 parity) {
    while (gate_at(at).parity == parity) give_way();
}

static u64 read_once() { return 0; }
static u64 read_often() { return 0; }
static void bring_near(const void*) {}

static void fetch(char* to, const char* from, u32 bytes, u64* gate, u64) {
    auto& memory = memories[block_number()];
    if (to < memory.data() || to + bytes > memory.data() + SLOT * SLOTS) fail("a copy leaves the ring");
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16) fail("a copy is not aligned");
    memset(to, 0xff, bytes);  // NaN until it is there
    copies.push_back({to, from, bytes, gate});
}

static void copy_one() {
    const int which = dice() % copies.size();
    const Copy one = copies[which];
    copies.erase(copies.begin() + which);
    memcpy(one.to, one.from, one.bytes);
    gate_at(one.gate).bytes -= one.bytes;
    complete(gate_at(one.gate));
}

static int dot4(int four, int other, int sum) {
    for (int i = 0; i < 4; i++) sum += (signed char)(four >> 8 * i) * (signed char)(other >> 8 * i);
    return sum;
}

static float widen(u16 number_) {
#if HALF
    _Float16 value;
    memcpy(&value, &number_, 2);
    return value;
#else
    return number((u32)number_ << 16);
#endif
}

static u16 narrow(float value) {
#if HALF
    const _Float16 half = value;
    u16 number_;
    memcpy(&number_, &half, 2);
    return number_;
#else
    const u32 word = bits(value);
    return (word + 0x7fff + (word >> 16 & 1)) >> 16;  // to the nearest, ties to even
#endif
}

static float rsqrtf(float value) { return 1 / std::sqrt(value); }
