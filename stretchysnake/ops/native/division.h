// The sequences of a call, the division of its work among threads, and their scratch memory; for
// dispatch.cpp.
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

// The sequences of a problem: the rows of a batch, or those packed into its one row.
struct Sequences {
    int64_t count, length;
    const int64_t* ends;  // 0, then where each packed sequence ends, or null

    template <typename Problem> static Sequences of(const Problem& p) {
        return {p.cu_seqlens ? p.sequences : p.batch, p.length, p.cu_seqlens};
    }
    int64_t start(int64_t b) const { return ends ? ends[b] : b * length; }
    int64_t length_of(int64_t b) const { return start(b + 1) - start(b); }
    int64_t total() const { return start(count); }
    int64_t longest() const {
        int64_t found = 0;
        for (int64_t b = 0; b < count; ++b) found = std::max(found, length_of(b));
        return found;
    }
};

// Of what is computed with, and of the sequences that may be narrow.
template <typename Problem> int64_t value_bytes(const Problem& p) { return p.is_double ? 8 : 4; }
template <typename Problem> int64_t row_bytes(const Problem& p) {
    return p.is_bf16 ? 2 : value_bytes(p);
}

// One sequence of a problem as a problem of its own, which is what the kernels take.
template <typename Problem> class OneSequence {
  public:
    OneSequence(const Problem& p, int64_t b)
        : problem(p), b_(b), all_(Sequences::of(p)), bytes_(value_bytes(p)),
          narrow_bytes_(row_bytes(p)) {
        problem.batch = 1, problem.length = all_.length_of(b);
        problem.sequences = 0, problem.cu_seqlens = nullptr;
    }
    void rows(Rows& rows) const { advance(rows.data, before(rows), bytes_); }
    void narrow_rows(Rows& rows) const { advance(rows.data, before(rows), narrow_bytes_); }
    void narrow_dense(void*& data, int64_t width) const {
        advance(data, all_.start(b_) * width, narrow_bytes_);
    }
    void each(void*& data, int64_t elements) const { advance(data, b_ * elements, bytes_); }
    // Chunks of so many tokens: those of a packed sequence begin where those
    // before it cannot reach, as problems.py makes room for them.
    void chunks(void*& data, int64_t tokens, int64_t elements) const {
        const int64_t before = all_.ends ? all_.start(b_) / tokens + b_
                                         : b_ * ((all_.length + tokens - 1) / tokens);
        advance(data, before * elements, bytes_);
    }
    Problem problem;

  private:
    int64_t before(const Rows& rows) const {
        return all_.ends ? all_.start(b_) * rows.row_stride : b_ * rows.batch_stride;
    }
    static void advance(void*& data, int64_t elements, int64_t bytes) {
        if (data) data = static_cast<char*>(data) + elements * bytes;
    }
    int64_t b_;
    Sequences all_;
    int64_t bytes_, narrow_bytes_;
};

inline ScanProblem sequence_of(const ScanProblem& p, int64_t b, int64_t lanes) {
    OneSequence<ScanProblem> own(p, b);
    ScanProblem& of = own.problem;
    for (Rows* rows : {&of.u, &of.delta, &of.z}) own.narrow_rows(*rows);
    for (Rows* rows : {&of.B, &of.C, &of.dt, &of.grad_y, &of.grad_z}) own.rows(*rows);
    for (void** data : {&of.y, &of.grad_u, &of.grad_delta}) own.narrow_dense(*data, p.channels);
    for (void** data :
         {&of.initial_state, &of.final_state, &of.grad_final_state, &of.grad_initial_state})
        own.each(*data, p.channels * p.state);
    const int64_t blocks = (p.channels + lanes - 1) / lanes;
    own.chunks(of.checkpoints, kCheckpointTokens, blocks * lanes * p.state);
    return of;
}

inline ConvProblem sequence_of(const ConvProblem& p, int64_t b, int64_t) {
    OneSequence<ConvProblem> own(p, b);
    ConvProblem& of = own.problem;
    own.narrow_rows(of.x);
    for (Rows* rows : {&of.projected, &of.grad_y, &of.grad_x}) own.rows(*rows);
    own.narrow_dense(of.y, p.channels);
    return of;
}

// Blocks (of the convolution's forward: tokens) [first, end) of one sequence.
struct Segment {
    int64_t sequence, first, end;
    Range range() const { return {first, end}; }
};

// Parts a thread takes of a forward, so that one held up by other work on the machine does not hold
// up the call. The backward keeps sums for each part and takes one.
constexpr int kForwardParts = 4;

// The (sequence, block) grid, row by row, cut into contiguous parts of equal work, which the threads
// take in turn; a block's work is its sequence's length. A convolution's forward is cut by tokens
// instead, blocks being 0.
struct Division {
    Sequences sequences;
    int64_t blocks;
    int threads, parts;

    Division(Sequences sequences, int64_t blocks, int64_t wanted, double updates,
             int parts_per_thread)
        : sequences(sequences), blocks(blocks) {
        const double worthwhile = std::max(1.0, updates / kUpdatesPerThread);
        const int64_t pieces =
            std::max<int64_t>(1, blocks ? sequences.count * blocks : sequences.total());
        threads = static_cast<int>(std::max<int64_t>(
            1, std::min({wanted, pieces, static_cast<int64_t>(worthwhile)})));
        parts = threads == 1
                    ? 1
                    : static_cast<int>(std::min<int64_t>(threads * parts_per_thread, pieces));
    }

    std::vector<Segment> segments(int part) const {
        Place from = place(part);
        const Place to = place(part + 1);
        std::vector<Segment> found;
        for (; from.sequence < to.sequence; from = {from.sequence + 1, 0})
            if (from.cell < cells(from.sequence))
                found.push_back({from.sequence, from.cell, cells(from.sequence)});
        if (from.cell < to.cell) found.push_back({to.sequence, from.cell, to.cell});
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

  private:
    struct Place {
        int64_t sequence, cell;
    };

    int64_t cells(int64_t b) const { return blocks ? blocks : sequences.length_of(b); }

    // Where a part begins: equal shares of the work, rounded down to whole cells.
    Place place(int part) const {
        if (part == parts) return {sequences.count, 0};
        const int64_t of_token = blocks ? blocks : 1;
        const int64_t work = sequences.total() * of_token * part / parts;
        int64_t low = 0, high = sequences.count - 1;  // the last sequence that begins at or before it
        while (low < high) {
            const int64_t middle = (low + high + 1) / 2;
            if (sequences.start(middle) * of_token <= work)
                low = middle;
            else
                high = middle - 1;
        }
        const int64_t of_cell = blocks ? sequences.length_of(low) : 1;
        return {low, (work - sequences.start(low) * of_token) / of_cell};
    }
};

}  // namespace
