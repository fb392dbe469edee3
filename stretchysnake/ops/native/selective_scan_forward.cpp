// Forward of the selective scan on blocks of V channels; compiled per instruction set.
//
// Symbols and order of the loops: selective_scan.h.
#include "selective_scan.h"

namespace KERNEL_NAMESPACE {
namespace {

// Blocks ahead whose rows are asked for early.
constexpr int64_t kAhead = 2;

// Advances `states` states of one block over a chunk, adding C . h to y; they live in registers.
template <typename T, int states, bool normal>
inline void advance(const Vec<T>* decay_rate, Vec<T>* h, const Inputs<T>& in, const Vec<T>* input,
                    Sequence<T> B, Sequence<T> C, int64_t first, int tokens, int64_t n,
                    Vec<T>* y) {
    Vec<T> state[states], rate[states];
    for (int i = 0; i < states; ++i) state[i] = h[n + i], rate[i] = decay_rate[n + i];
    for (int t = 0; t < tokens; ++t) {
        const T *B_row = B.row(first + t) + n, *C_row = C.row(first + t) + n;
        Vec<T> sum = y[t];
#pragma GCC unroll 4
        for (int i = 0; i < states; ++i) {
            state[i] = exp2_of<T, normal>(in.step[t] * rate[i]) * state[i] + input[t] * B_row[i];
            sum += state[i] * C_row[i];
        }
        y[t] = sum;
    }
    for (int i = 0; i < states; ++i) h[n + i] = state[i];
}

template <typename T, bool normal>
inline void advance_all(const Vec<T>* rate, Vec<T>* h, const Inputs<T>& in, const Vec<T>* input,
                        Sequence<T> B, Sequence<T> C, int64_t first, int tokens, int64_t N,
                        Vec<T>* y) {
    int64_t n = 0;
    for (; n + kTogether <= N; n += kTogether)
        advance<T, kTogether, normal>(rate, h, in, input, B, C, first, tokens, n, y);
    for (; n < N; ++n) advance<T, 1, normal>(rate, h, in, input, B, C, first, tokens, n, y);
}

// u, delta, z and y are stored as S.
template <typename T, typename S>
void forward(const ScanProblem& p, Range segment, void* workspace) {
    using V = Vec<T>;
    constexpr int lanes = Simd<T>::lanes;
    const int64_t N = p.state, L = p.length;
    const int64_t owned = segment.end - segment.first;
    const InputRows<T, S> rows(p);
    const auto B = sequence<T>(p, p.B), C = sequence<T>(p, p.C);
    const auto z = sequence<S>(p, p.z), y_rows = dense<S>(p, p.y, p.channels);
    const T* D = static_cast<const T*>(p.D);
    const Owned<T> own =
        take_blocks<T>(p, segment, static_cast<const T*>(p.initial_state), workspace);
    const Sequence<S>* near[] = {&rows.u, &rows.delta, &z, &y_rows};
    const int64_t chunks = (L + K - 1) / K;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * K;
        const int tokens = static_cast<int>(L - first < K ? L - first : K);
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first + k, channel = block * lanes;
            const int count = block_lanes<T>(p, block);
            // the block after the next, of this chunk or of the following one
            const bool here = k + kAhead < owned;
            const int64_t ahead = here ? first : first + K;
            const int64_t left = L - ahead < K ? L - ahead : K;
            const int64_t ahead_channel = channel + (here ? kAhead : kAhead - owned) * lanes;
            for (const Sequence<S>* s : near) prefetch<S>(*s, ahead, left, ahead_channel);
            V *h = own.state + k * N, *rate = own.rate + k * N;
            if (p.checkpoints)
                memcpy(checkpoint<T>(p, chunk, block), h, N * sizeof(V));
            Inputs<T> in;
            V input[K], y[K];
            read_inputs<T, S>(p, rows, own, k, first, tokens, channel, count, in);
            const V skip = D ? load<T>(D + channel, count) : V{};
            for (int t = 0; t < tokens; ++t) {
                input[t] = in.step[t] * in.u[t];
                y[t] = D ? skip * in.u[t] : V{};
                if (p.adds) y[t] += load<T>(y_rows.row(first + t) + channel, count);
            }
            if (in.normal)
                advance_all<T, true>(rate, h, in, input, B, C, first, tokens, N, y);
            else
                advance_all<T, false>(rate, h, in, input, B, C, first, tokens, N, y);
            for (int t = 0; t < tokens; ++t) {
                if (p.z.data) {
                    const V gate = load<T>(z.row(first + t) + channel, count);
                    y[t] *= gate * sigmoid<T>(gate);
                }
                store<T>(writable(y_rows, first + t) + channel, y[t], count);
            }
        }
    }
    if (p.final_state)
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first + k;
            scatter_states<T>(own.state + k * N, N, block_lanes<T>(p, block),
                              static_cast<T*>(p.final_state) + block * lanes * N);
        }
}

}  // namespace

int64_t scan_workspace(const ScanProblem& p, bool backward) {
    const int64_t lanes = p.is_double ? Simd<double>::lanes : Simd<float>::lanes;
    const int64_t kept = p.is_double ? owned_elements<double>(p) : owned_elements<float>(p);
    // the gradients of B, C and dt of a chunk come first, then what take_blocks lays out
    return (backward ? K * (2 * p.state + p.rank) * lanes : 0) + kept;
}

void scan_forward(const ScanProblem& p, Range segment, void* workspace) {
    if (p.is_double)
        forward<double, double>(p, segment, workspace);
    else if (p.is_bf16)
        forward<float, BFloat16>(p, segment, workspace);
    else
        forward<float, float>(p, segment, workspace);
}

}  // namespace KERNEL_NAMESPACE
