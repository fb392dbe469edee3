// The C ABI of the library: choice of the instruction set, work for the threads, deterministic sums
// over them. Compiled for the baseline processor only.
//
// A call takes one problem or several of the same shape, which a thread does one after the other
// for its channels: both directions of a mixer in one waking of the threads. The sequences of a batch
// and those packed into one row are divided alike.
#include <exception>
#include <memory>

#include "division.h"
#include "scan_gradients.h"

#define DECLARE_KERNELS(name)                                                                  \
    namespace name {                                                                           \
    int64_t scan_workspace(const ScanProblem&, bool);                                          \
    void scan_forward(const ScanProblem&, Range, void*);                                     \
    void scan_backward(const ScanProblem&, Range, const ScanSums&, void*);                   \
    int64_t conv_workspace(const ConvProblem&);                                                \
    void conv_forward(const ConvProblem&, Range, void*);                                     \
    void conv_backward(const ConvProblem&, Range, void*, void*);                             \
    void norm_forward(const NormProblem&, Range);                                              \
    void norm_backward(const NormProblem&, Range, void*);                                      \
    }
#define KERNEL_TABLE(name, bytes)                                                              \
    KernelTable {                                                                              \
        #name, bytes, name::scan_workspace, name::scan_forward, name::scan_backward,           \
            name::conv_workspace, name::conv_forward, name::conv_backward, name::norm_forward, \
            name::norm_backward                                                                \
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

int64_t lanes_of(int64_t is_double) { return kernels->vector_bytes / (is_double ? 8 : 4); }

template <typename Problem> int64_t sequence_bytes(const Problem& p) {
    return p.batch * p.length * p.channels * row_bytes(p);
}

template <typename Problem>
Division divided(const Problem& p, double updates, int parts_per_thread) {
    const int64_t lanes = lanes_of(p.is_double);
    return {Sequences::of(p), (p.channels + lanes - 1) / lanes, p.num_threads, updates,
            parts_per_thread};
}

template <typename T> void run_scan_backward(const ScanProblem* problems, int count) {
    const ScanProblem& p = problems[0];
    const int64_t lanes = lanes_of(p.is_double);
    const Division division =
        divided(p, 3.0 * count * p.batch * p.length * p.channels * p.state, 1);
    const size_t bytes = aligned(kernels->scan_workspace(p, true) * sizeof(T));
    const Scratch work(division.parts * bytes, false);
    std::vector<std::unique_ptr<ScanGradients<T>>> gradients;
    for (int i = 0; i < count; ++i)
        gradients.push_back(std::make_unique<ScanGradients<T>>(problems[i], division, lanes));
    division.run([&](int part) {
        const std::vector<Segment> segments = division.segments(part);
        for (size_t index = 0; index < segments.size(); ++index) {
            const Segment& s = segments[index];
            for (int i = 0; i < count; ++i)
                kernels->scan_backward(sequence_of(problems[i], s.sequence, lanes), s.range(),
                                       gradients[i]->sums(part, index, s), work.at(part * bytes));
        }
    });
    for (const auto& each : gradients) each->collect();
}

// The parts' sums of a projection's gradient, behind those of the convolution, to (outputs, D).
template <typename T>
void sum_projection(const Scratch& sums, size_t of_part, size_t of_problem, int parts,
                    int64_t lanes, const ConvProblem& p, T* out) {
    for (int64_t output = 0; output < p.outputs; ++output)
        for (int64_t d = 0; d < p.channels; ++d) {
            const int64_t row = d / lanes * (p.width + 1 + p.outputs) + p.width + 1 + output;
            T total = 0;
            for (int part = 0; part < parts; ++part)
                total += reinterpret_cast<const T*>(
                    sums.at(part * of_part + of_problem))[row * lanes + d % lanes];
            out[output * p.channels + d] = total;
        }
}

template <typename T> void run_conv_backward(const ConvProblem* problems, int count) {
    const ConvProblem& p = problems[0];
    const int64_t lanes = lanes_of(p.is_double), outputs = p.projection ? p.outputs : 0;
    const int64_t rows = p.width + 1 + outputs;
    const double updates = 3.0 * count * p.batch * p.length * p.channels;
    const Division division = divided(p, updates * (outputs ? 4 : 1), 1);
    const size_t sums_bytes = aligned(division.blocks * rows * lanes * sizeof(T));
    const size_t work_bytes = aligned(kernels->conv_workspace(p) * sizeof(T));
    const Scratch sums(count * division.parts * sums_bytes, true);
    const Scratch work(division.parts * work_bytes, false);
    division.run([&](int part) {
        for (const Segment& s : division.segments(part))
            for (int i = 0; i < count; ++i)
                kernels->conv_backward(sequence_of(problems[i], s.sequence, lanes), s.range(),
                                       sums.at((i * division.parts + part) * sums_bytes),
                                       work.at(part * work_bytes));
    });
    for (int i = 0; i < count; ++i) {
        const size_t of_problem = i * division.parts * sums_bytes;
        const auto sum = [&](int64_t count_rows, int64_t skip, void* out) {
            if (out)
                sum_blocks<T>(sums, sums_bytes, of_problem, division.parts, lanes, p.channels,
                              count_rows, rows, skip, static_cast<T*>(out));
        };
        sum(p.width, 0, problems[i].grad_weight);
        sum(1, p.width, problems[i].grad_bias);
        if (outputs)
            sum_projection(sums, sums_bytes, of_problem, division.parts, lanes, p,
                           static_cast<T*>(problems[i].grad_projection));
    }
}

// A forward of every problem: `kernel` on pieces of at most `longest` of every range, with
// `elements` of workspace a part.
template <typename Problem>
void run_forward(const Problem* problems, int count, const Division& division, int64_t longest,
                 int64_t elements, void (*kernel)(const Problem&, Range, void*)) {
    const size_t bytes = aligned(elements * value_bytes(problems[0]));
    const Scratch work(division.parts * bytes, false);
    const int64_t lanes = lanes_of(problems[0].is_double);
    for (int i = 0; i < count; ++i) use_large_pages(problems[i].y, sequence_bytes(problems[i]));
    division.run([&](int part) {
        for (const Segment& s : division.segments(part))
            for (int64_t first = s.first; first < s.end; first += longest) {
                const Range range = {first, std::min(first + longest, s.end)};
                for (int i = 0; i < count; ++i)
                    kernel(sequence_of(problems[i], s.sequence, lanes), range,
                           work.at(part * bytes));
            }
    });
}

// A projection (outputs, D) as (panel, D, outputs of a panel), with zeros for outputs it does not have.
template <typename T> std::unique_ptr<Scratch> packed_projection(const ConvProblem& p) {
    const int64_t width = kPanel * lanes_of(p.is_double);
    const int64_t panels = (p.outputs + width - 1) / width;
    auto packed = std::make_unique<Scratch>(panels * p.channels * width * sizeof(T), true);
    T* to = reinterpret_cast<T*>(packed->at(0));
    const T* from = static_cast<const T*>(p.projection);
    for (int64_t output = 0; output < p.outputs; ++output) {
        T* column = to + output / width * p.channels * width + output % width;
        for (int64_t d = 0; d < p.channels; ++d) column[d * width] = from[output * p.channels + d];
    }
    return packed;
}

// Tokens whose rows are still near when the second direction of a convolution reads them.
constexpr int64_t kConvTokens = 128;

Division by_rows(const NormProblem& p, int parts_per_thread) {
    return {{1, p.rows, nullptr}, 0, p.num_threads, 1.0 * p.rows * p.width, parts_per_thread};
}

template <typename T> void run_norm_backward(const NormProblem& p) {
    const Division division = by_rows(p, 1);
    const size_t bytes = aligned(p.width * sizeof(T));
    const Scratch sums(division.parts * bytes, true);
    division.run([&](int part) {
        for (const Segment& rows : division.segments(part))
            kernels->norm_backward(p, rows.range(), sums.at(part * bytes));
    });
    T* grad_weight = static_cast<T*>(p.grad_weight);
    for (int64_t c = 0; c < p.width; ++c) {
        grad_weight[c] = 0;
        for (int part = 0; part < division.parts; ++part)
            grad_weight[c] += reinterpret_cast<const T*>(sums.at(part * bytes))[c];
    }
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

int stretchysnake_abi_version() { return 8; }

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

int stretchysnake_scan_forward(const ScanProblem* problems, int count) {
    return guarded([&] {
        const ScanProblem& p = problems[0];
        const double updates = 1.0 * count * p.batch * p.length * p.channels * p.state;
        const Division division = divided(p, updates, kForwardParts);
        run_forward(problems, count, division, division.blocks,
                    kernels->scan_workspace(p, false), kernels->scan_forward);
    });
}

int stretchysnake_scan_backward(const ScanProblem* problems, int count) {
    return guarded([&] {
        for (int i = 0; i < count; ++i)
            for (void* out : {problems[i].grad_u, problems[i].grad_delta})
                use_large_pages(out, sequence_bytes(problems[i]));
        problems[0].is_double ? run_scan_backward<double>(problems, count)
                              : run_scan_backward<float>(problems, count);
    });
}

int stretchysnake_conv_forward(const ConvProblem* problems, int count) {
    return guarded([&] {
        const ConvProblem& p = problems[0];
        std::vector<ConvProblem> packed(problems, problems + count);
        std::vector<std::unique_ptr<Scratch>> weights;
        for (ConvProblem& each : packed) {
            if (!each.projection) continue;
            weights.push_back(each.is_double ? packed_projection<double>(each)
                                             : packed_projection<float>(each));
            each.projection = weights.back()->at(0);
        }
        const double values = 1.0 * count * p.batch * p.length * (p.channels + p.outputs);
        const Division tokens(Sequences::of(p), 0, p.num_threads, values, kForwardParts);
        run_forward(packed.data(), count, tokens, kConvTokens, kernels->conv_workspace(p),
                    kernels->conv_forward);
    });
}

int stretchysnake_conv_backward(const ConvProblem* problems, int count) {
    return guarded([&] {
        problems[0].is_double ? run_conv_backward<double>(problems, count)
                              : run_conv_backward<float>(problems, count);
    });
}

int stretchysnake_norm_forward(const NormProblem* p, int) {
    return guarded([&] {
        const Division division = by_rows(*p, kForwardParts);
        division.run([&](int part) {
            for (const Segment& rows : division.segments(part))
                kernels->norm_forward(*p, rows.range());
        });
    });
}

int stretchysnake_norm_backward(const NormProblem* p, int) {
    return guarded(
        [&] { p->is_double ? run_norm_backward<double>(*p) : run_norm_backward<float>(*p); });
}

}  // extern "C"
