// `one_kernel.cu` on a CPU: compiled with its macros, EMULATED and the seed's order of fibers.

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#include "emulated_cuda.h"
#include KERNEL

static Arguments arguments;

static void enter() {
    glmkit_step(arguments);
    fibers[running].done = true;
    swapcontext(&fibers[running].context, &scheduler);
}

// Runs the kernel; returns what went wrong, or NULL.
extern "C" const char* run(const Arguments* given, unsigned seed) {
    arguments = *given;
    dice.seed(seed);
    trouble = nullptr;
    waited = 0;
    copies.clear();
    memories.assign(BLOCKS, std::vector<char>(sizeof(Memory) + 128, (char)0xff));
    for (auto& one : exchanged) one.assign(BLOCKS * OF_BLOCK, 0);
    fibers.clear();
    fibers.resize(BLOCKS * OF_BLOCK);
    for (auto& fiber : fibers) {
        fiber.stack.resize(1 << 16);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        makecontext(&fiber.context, enter, 0);
    }
    const int count = (int)fibers.size();
    for (int left = count; left;) {
        // Warps in turn from a random one on, so that blocks run ahead of one another.
        const int begin = dice() % count / 32 * 32, some = 32 * (1 + dice() % (count / 32));
        for (int i = begin; i < begin + some; i++) {
            running = i % count;
            if (fibers[running].done) continue;
            swapcontext(&scheduler, &fibers[running].context);
            if (trouble) return trouble;
            left -= fibers[running].done;
        }
        if (!copies.empty() && dice() % 2) copy_one();
        if (copies.empty() && waited > 200l * count) return "all wait";
    }
    return nullptr;
}
