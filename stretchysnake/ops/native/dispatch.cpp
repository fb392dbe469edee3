// The C ABI of the library: choice of the instruction set, division of the work among threads,
// deterministic sums over them. Compiled for the baseline processor only.
//
// Threads are those of torch's own OpenMP pool where the caller hands it over, so no second pool
// spins beside it; else, and in a forked process, whose pool is gone, they are started and joined
// within the call.
// The division depends on the problem and the thread count alone, and partial sums are added in
// thread order, so equal calls give bitwise equal results; thread counts differ by rounding.
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

#define DECLARE_KERNELS(name)                                                                  \
    namespace name {                                                                           \
    int64_t scan_workspace(const ScanProblem&, bool);                                          \
    void scan_forward(const ScanProblem&, Segment, void*);                                     \
    void scan_backward(const ScanProblem&, Segment, const ScanSums&, void*);                   \
    int64_t conv_workspace(const ConvProblem&);                                                \
    void conv_forward(const ConvProblem&, Segment, void*);                                     \
    void conv_backward(const ConvProblem&, Segment, void*, void*);                             \
    }
#define KERNEL_TABLE(name, bytes)                                                              \
    KernelTable {                                                                              \
        #name, bytes, name::scan_workspace, name::scan_forward, name::scan_backward,           \
            name::conv_workspace, name::conv_forward, name::conv_backward                      \
    }

DECLARE_KERNELS(baseline)
#ifdef HAVE_X86_LEVELS
DECLARE_KERNELS(avx2)
DECLARE_KERNELS(avx512)
#endif

namespace {

const KernelTable kBaseline = KERNEL_TABLE(baseline, 16);
#ifdef HAVE_X86_LEVELS
const KernelTable kAvx2 = KERNEL_TABLE(avx2, 32);
const KernelTable kAvx512 = KERNEL_TABLE(avx512, 64);
#endif

const KernelTable* best_kernels() {
#ifdef HAVE_X86_LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &kAvx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kAvx2;
#endif
    return &kBaseline;
}

const KernelTable* kernels = best_kernels();

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

    std::vector<Segment> segments(int part) const {
        const int64_t total = batch * blocks;
        int64_t from = total * part / parts;
        const int64_t to = total * (part + 1) / parts;
        std::vector<Segment> found;
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

int64_t lanes_of(int64_t is_double) { return kernels->vector_bytes / (is_double ? 8 : 4); }

template <typename T> void add(T* to, const T* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

// Block-wise vectors ((block, row, lane), one copy per thread) to dense (channel, row).
template <typename T>
void sum_blocks(const Scratch& sums, size_t per_thread, size_t offset, int threads, int64_t lanes,
                int64_t channels, int64_t rows, int64_t row_stride, int64_t skip, T* out) {
    for (int64_t channel = 0; channel < channels; ++channel)
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t index =
                (channel / lanes * row_stride + skip + row) * lanes + channel % lanes;
            T total = 0;
            for (int thread = 0; thread < threads; ++thread)
                total += reinterpret_cast<const T*>(sums.at(thread * per_thread + offset))[index];
            out[channel * rows + row] = total;
        }
}

template <typename T> void run_scan_backward(const ScanProblem& p) {
    const int64_t lanes = lanes_of(p.is_double), N = p.state;
    const int64_t blocks = (p.channels + lanes - 1) / lanes;
    const Division division(p.batch, blocks, p.num_threads,
                            3.0 * p.batch * p.length * p.channels * N, 1);
    const size_t vector = lanes * sizeof(T);
    const size_t of_A = 0, of_D = blocks * N * vector, of_bias = of_D + blocks * vector;
    const size_t sums_bytes = aligned(of_bias + blocks * vector);
    const size_t work_bytes = aligned(kernels->scan_workspace(p, true) * sizeof(T));
    const int64_t row = p.length * N;
    const size_t edge_bytes = aligned(2 * row * sizeof(T));
    const int threads = division.parts;
    Scratch sums(threads * sums_bytes, true), work(threads * work_bytes, false);
    // A part shares at most its first and its last sequence with others.
    Scratch edges(threads > 1 ? 2 * threads * edge_bytes : 0, false);

    std::vector<std::vector<Segment>> plan;
    for (int thread = 0; thread < threads; ++thread) plan.push_back(division.segments(thread));
    const auto is_whole = [&](const Segment& s) {
        return s.first_block == 0 && s.end_block == blocks;
    };
    const auto edge = [&](int thread, size_t index) {
        return reinterpret_cast<T*>(edges.at((2 * thread + (index > 0)) * edge_bytes));
    };
    T *grad_B = static_cast<T*>(p.grad_B), *grad_C = static_cast<T*>(p.grad_C);
    division.run([&](int thread) {
        char* own = sums.at(thread * sums_bytes);
        for (size_t i = 0; i < plan[thread].size(); ++i) {
            const Segment s = plan[thread][i];
            T* to_B = is_whole(s) ? grad_B + s.batch_index * row : edge(thread, i);
            T* to_C = is_whole(s) ? grad_C + s.batch_index * row : edge(thread, i) + row;
            kernels->scan_backward(p, s, {own + of_A, own + of_D, own + of_bias, to_B, to_C},
                                   work.at(thread * work_bytes));
        }
    });
    int64_t opened = -1;
    for (int thread = 0; thread < threads; ++thread)
        for (size_t i = 0; i < plan[thread].size(); ++i) {
            const Segment s = plan[thread][i];
            if (is_whole(s)) continue;
            T *to_B = grad_B + s.batch_index * row, *to_C = grad_C + s.batch_index * row;
            if (s.batch_index != opened) {
                std::memcpy(to_B, edge(thread, i), row * sizeof(T));
                std::memcpy(to_C, edge(thread, i) + row, row * sizeof(T));
                opened = s.batch_index;
            } else {
                add(to_B, edge(thread, i), row);
                add(to_C, edge(thread, i) + row, row);
            }
        }
    const auto collect = [&](size_t offset, int64_t rows, void* out) {
        if (out)
            sum_blocks<T>(sums, sums_bytes, offset, threads, lanes, p.channels, rows, rows, 0,
                          static_cast<T*>(out));
    };
    collect(of_A, N, p.grad_A);
    collect(of_D, 1, p.grad_D);
    collect(of_bias, 1, p.grad_delta_bias);
}

template <typename T> void run_conv_backward(const ConvProblem& p) {
    const int64_t lanes = lanes_of(p.is_double), rows = p.width + 1;
    const int64_t blocks = (p.channels + lanes - 1) / lanes;
    const Division division(p.batch, blocks, p.num_threads,
                            3.0 * p.batch * p.length * p.channels, 1);
    const size_t sums_bytes = aligned(blocks * rows * lanes * sizeof(T));
    const size_t work_bytes = aligned(kernels->conv_workspace(p) * sizeof(T));
    Scratch sums(division.parts * sums_bytes, true), work(division.parts * work_bytes, false);
    division.run([&](int thread) {
        for (const Segment& s : division.segments(thread))
            kernels->conv_backward(p, s, sums.at(thread * sums_bytes),
                                   work.at(thread * work_bytes));
    });
    sum_blocks<T>(sums, sums_bytes, 0, division.parts, lanes, p.channels, p.width, rows, 0,
                  static_cast<T*>(p.grad_weight));
    if (p.grad_bias)
        sum_blocks<T>(sums, sums_bytes, 0, division.parts, lanes, p.channels, 1, rows, p.width,
                      static_cast<T*>(p.grad_bias));
}

// No exception may cross the C ABI. 0: done, 1: out of memory or another failure.
template <typename Work> int guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

}  // namespace

extern "C" {

int stretchysnake_abi_version() { return 3; }

const char* stretchysnake_instruction_set() { return kernels->name; }

// Takes the named instruction set where the processor has it; for tests. 0: taken, 1: not.
int stretchysnake_use_instruction_set(const char* name) {
    const KernelTable* best = best_kernels();
    for (const KernelTable* table : {
#ifdef HAVE_X86_LEVELS
             &kAvx512, &kAvx2,
#endif
             &kBaseline})
        if (!std::strcmp(table->name, name) && table->vector_bytes <= best->vector_bytes) {
            kernels = table;
            return 0;
        }
    return 1;
}

// Takes the address of GOMP_parallel, or 0 to start threads in each call.
void stretchysnake_use_gomp(void* function) {
    gomp_parallel = reinterpret_cast<GompParallel>(function);
    gomp_process = this_process();
}

// The forward leaves N states of every block of channels, one vector each, every so many tokens.
int stretchysnake_vector_bytes() { return static_cast<int>(kernels->vector_bytes); }
int stretchysnake_checkpoint_tokens() { return static_cast<int>(kCheckpointTokens); }

int stretchysnake_scan_forward(const ScanProblem* p) {
    return guarded([&] {
        use_large_pages(p->y, p->batch * p->length * p->channels * (p->is_double ? 8 : 4));
        const int64_t lanes = lanes_of(p->is_double);
        const Division division(p->batch, (p->channels + lanes - 1) / lanes, p->num_threads,
                                1.0 * p->batch * p->length * p->channels * p->state, kForwardParts);
        const size_t bytes =
            aligned(kernels->scan_workspace(*p, false) * (p->is_double ? 8 : 4));
        Scratch work(division.parts * bytes, false);
        division.run([&](int thread) {
            for (const Segment& s : division.segments(thread))
                kernels->scan_forward(*p, s, work.at(thread * bytes));
        });
    });
}

int stretchysnake_scan_backward(const ScanProblem* p) {
    return guarded([&] {
        for (void* out : {p->grad_u, p->grad_delta, p->grad_z})
            use_large_pages(out, p->batch * p->length * p->channels * (p->is_double ? 8 : 4));
        p->is_double ? run_scan_backward<double>(*p) : run_scan_backward<float>(*p);
    });
}

int stretchysnake_conv_forward(const ConvProblem* p) {
    return guarded([&] {
        use_large_pages(p->y, p->batch * p->length * p->channels * (p->is_double ? 8 : 4));
        const int64_t lanes = lanes_of(p->is_double);
        const Division division(p->batch, (p->channels + lanes - 1) / lanes, p->num_threads,
                                1.0 * p->batch * p->length * p->channels, kForwardParts);
        const size_t bytes = aligned(kernels->conv_workspace(*p) * (p->is_double ? 8 : 4));
        Scratch work(division.parts * bytes, false);
        division.run([&](int thread) {
            for (const Segment& s : division.segments(thread))
                kernels->conv_forward(*p, s, work.at(thread * bytes));
        });
    });
}

int stretchysnake_conv_backward(const ConvProblem* p) {
    return guarded([&] {
        use_large_pages(p->grad_x, p->batch * p->length * p->channels * (p->is_double ? 8 : 4));
        p->is_double ? run_conv_backward<double>(*p) : run_conv_backward<float>(*p);
    });
}

}  // extern "C"
