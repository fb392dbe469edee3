// The division of a call's work among threads, and their scratch memory; for dispatch.cpp.
//
// Threads are those of torch's own OpenMP pool where the caller hands it over, so no second pool
// spins beside it; else, and in a forked process, whose pool is gone, they are started and joined
// within the call.
// The division depends on the problem and the thread count alone, and partial sums are added in
// thread order, so equal calls give bitwise equal results; thread counts differ by rounding.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifndef _WIN32
#include <unistd.h>
#endif

#include "kernels.h"

namespace {

// State updates one thread should have before another is worth waking (up to 100 us).
constexpr double kUpdatesPerThread = 2e5;

// GOMP_parallel of the libgomp that torch has loaded, or null.
using GompParallel = void (*)(void (*work)(void*), void* argument, unsigned threads, unsigned);
GompParallel gomp_parallel = nullptr;
long gomp_process = 0;

long this_process() {
#ifdef _WIN32
    return 0;
#else
    return static_cast<long>(getpid());
#endif
}

// Asks for pages of 2 MiB under a large output that is about to be written for the first time: it
// then costs one page fault where it cost 512. Where the system has none, nothing changes.
void use_large_pages(void* data, int64_t bytes) {
#ifdef __linux__
    constexpr uintptr_t page = 1 << 21;
    if (!data || bytes < static_cast<int64_t>(4 * page)) return;
    const uintptr_t from = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t to = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
    if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

// 64-byte aligned scratch memory, zeroed on request.
class Scratch {
  public:
    Scratch(size_t bytes, bool zeroed) : bytes_((bytes + 63) / 64 * 64) {
        data_ = bytes ? std::aligned_alloc(64, bytes_) : nullptr;
        if (bytes && !data_) throw std::bad_alloc();
        if (zeroed && data_) std::memset(data_, 0, bytes_);
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    char* at(size_t byte) const { return static_cast<char*>(data_) + byte; }

  private:
    void* data_;
    size_t bytes_;
};

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Parts a thread takes of a forward, so that one held up by other work on the machine does not hold
// up the call. The backward keeps sums for each part and takes one.
constexpr int kForwardParts = 4;

// The (sequence, block) grid, row by row, cut into contiguous parts, which the threads take in turn.
// A convolution's forward is cut by tokens instead; they then stand for the blocks here.
struct Division {
    int64_t batch, blocks;
    int threads, parts;

    Division(int64_t batch, int64_t blocks, int64_t wanted, double updates, int parts_per_thread)
        : batch(batch), blocks(blocks) {
        const double worthwhile = std::max(1.0, updates / kUpdatesPerThread);
        const int64_t pieces = std::max<int64_t>(1, batch * blocks);
        threads = static_cast<int>(std::max<int64_t>(
            1, std::min({wanted, pieces, static_cast<int64_t>(worthwhile)})));
        parts = threads == 1
                    ? 1
                    : static_cast<int>(std::min<int64_t>(threads * parts_per_thread, pieces));
    }

    std::vector<Range> segments(int part) const {
        const int64_t total = batch * blocks;
        int64_t from = total * part / parts;
        const int64_t to = total * (part + 1) / parts;
        std::vector<Range> found;
        while (from < to) {
            const int64_t b = from / blocks, end = std::min(to, (b + 1) * blocks);
            found.push_back({b, from - b * blocks, end - b * blocks});
            from = end;
        }
        return found;
    }

    // Calls work(part) for every part; how many threads there really are changes nothing.
    template <typename Work> void run(Work work) const {
        if (threads == 1) return work(0);
        struct Shared {
            Work* work;
            int parts;
            std::atomic<int> next;
        } shared{&work, parts, {0}};
        const auto take = [](void* argument) {
            Shared* shared = static_cast<Shared*>(argument);
            for (int part; (part = shared->next++) < shared->parts;) (*shared->work)(part);
        };
        if (gomp_parallel && gomp_process == this_process())
            return gomp_parallel(take, &shared, static_cast<unsigned>(threads), 0);
        std::vector<std::thread> others;
        try {
            others.reserve(threads - 1);
            while (static_cast<int>(others.size()) < threads - 1) others.emplace_back(take, &shared);
        } catch (const std::exception&) {
            // The system refuses another thread: those there are take its parts.
        }
        take(&shared);
        for (std::thread& other : others) other.join();
    }
};

}  // namespace
