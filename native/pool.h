// Threads that run one job together, step by step.
//
// `run(job)` calls job(thread) on every thread, the caller being thread 0. Within a job `wait` is a barrier, and
// `share` hands out pieces of work, so that a thread that the machine holds up does less of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace glmkit {

class Pool {
  public:
    explicit Pool(int threads) : threads_(threads), own_turn_(size_t(threads)) {}
    ~Pool() { stop(); }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }

    // On all threads, or (alone) on the caller: little work is done before others have woken.
    void run(const std::function<void(int)>& job, bool alone = false) {
        active_ = alone ? 1 : threads_;
        // Nobody is at work: all threads begin at the same counter, whatever the caller did alone before.
        for (auto& own : own_turn_) own.value = 0;
        for (auto& counter : next_) counter.value.store(0, std::memory_order_relaxed);
        if (alone) return job(0);
        start();
        job_ = &job;
        running_.store(threads_ - 1, std::memory_order_relaxed);
        jobs_.fetch_add(1, std::memory_order_release);
        jobs_.notify_all();
        job(0);
        for (int spins = 0; running_.load(std::memory_order_acquire);) pause(spins);
    }

    void wait() {
        if (active_ == 1) return;
        uint32_t turn = turns_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            turns_.store(turn + 1, std::memory_order_release);
        } else {
            for (int spins = 0; turns_.load(std::memory_order_acquire) == turn;) pause(spins);
        }
    }

    // Calls work(first, last) for pieces of 0..n until none is left, then waits for all threads. Every thread of a job
    // calls it, in the same order. A piece is a thread's part of what is left, at least (and a multiple of) `least`: memory is
    // read in long streams, and the end is near for all at once (guided self-scheduling, Polychronopoulos and Kuck, 1987).
    template <typename Work>
    void share(int thread, int64_t n, int64_t least, const Work& work) {
        // Two counters in turn: one in use; the other, which all threads have left, is cleared for the next call.
        unsigned turn = own_turn_[size_t(thread)].value++ % 2;
        if (thread == 0) next_[1 - turn].value.store(0, std::memory_order_relaxed);
        for (;;) {
            auto& next = next_[turn].value;
            int64_t first = next.load(std::memory_order_relaxed), some;
            do some = std::max(least, (n - first) / active_ / least * least);
            while (first < n && !next.compare_exchange_weak(first, first + some, std::memory_order_relaxed));
            if (first >= n) break;
            work(first, std::min(first + some, n));
        }
        wait();
    }

  private:
    struct alignas(64) Counter {
        std::atomic<int64_t> value{0};
    };
    struct alignas(64) Own {
        unsigned value = 0;
    };

    static void pause(int& spins) {
        if (++spins < 4000) {
#if defined(__x86_64__)
            _mm_pause();
#elif defined(__aarch64__)
            asm volatile("isb");  // some ten nanoseconds, as a pause of x86; the instruction named yield does nothing
#endif
        } else {
            std::this_thread::yield();
        }
    }

    void start() {
#if !defined(_WIN32)
        if (owner_ != getpid()) {  // first use, or a forked child, in which only the calling thread lives
            for (auto& worker : workers_) new std::unique_ptr<std::thread>(std::move(worker));  // cannot be joined here
            workers_.clear();
            arrived_ = 0, turns_ = 0, running_ = 0;
            owner_ = getpid();
        }
#endif
        if (int(workers_.size()) == threads_ - 1) return;
        uint32_t seen = jobs_.load();
        for (int thread = 1; thread < threads_; ++thread)
            workers_.push_back(std::make_unique<std::thread>([this, thread, seen] { work(thread, seen); }));
    }

    void stop() {
#if !defined(_WIN32)
        if (owner_ != getpid()) {
            for (auto& worker : workers_) new std::unique_ptr<std::thread>(std::move(worker));
            return;
        }
#endif
        ending_ = true;
        jobs_.fetch_add(1, std::memory_order_release);
        jobs_.notify_all();
        for (auto& worker : workers_) worker->join();
    }

    void work(int thread, uint32_t seen) {
        for (;;) {
            for (int spins = 0; jobs_.load(std::memory_order_acquire) == seen;)
                if (spins < 20000)
                    pause(spins);
                else
                    jobs_.wait(seen, std::memory_order_acquire);
            seen = jobs_.load(std::memory_order_acquire);
            if (ending_) return;
            (*job_)(thread);
            running_.fetch_sub(1, std::memory_order_release);
        }
    }

    int threads_, active_ = 1;
    std::vector<std::unique_ptr<std::thread>> workers_;
    const std::function<void(int)>* job_ = nullptr;
    alignas(64) std::atomic<uint32_t> jobs_{0};
    alignas(64) std::atomic<int> running_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> turns_{0};
    Counter next_[2];
    std::vector<Own> own_turn_;
    std::atomic<bool> ending_{false};
    long owner_ = 0;
};

}  // namespace glmkit
