// What the forward and the backward of the selective scan share; compiled per instruction set.
//
// Symbols: B batch, L tokens, D channels, N state size, K tokens of a chunk, V lanes of a vector.
// Order of the loops: chunk of K tokens, block of V channels, group of states, token. A chunk's
// rows stay in the cache while all blocks pass over them; nothing of size L * D * N is ever stored.
#pragma once

#include "kernels.h"
#include "vector_math.h"

namespace {

constexpr int64_t K = kCheckpointTokens;
constexpr int kTogether = 4;  // states advanced together, in registers
constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;

template <typename T> struct Sequence {
    const T* start;
    int64_t stride;
    const T* row(int64_t token) const { return start + token * stride; }
};

// The rows of the sequence in reading order.
template <typename T> Sequence<T> sequence(const ScanProblem& p, const Rows& rows) {
    const T* start = static_cast<const T*>(rows.data);
    if (!start) return {nullptr, 0};
    if (p.reverse) return {start + (p.length - 1) * rows.row_stride, -rows.row_stride};
    return {start, rows.row_stride};
}

template <typename T> Sequence<T> dense(const ScanProblem& p, void* data, int64_t width) {
    return sequence<T>(p, Rows{data, 0, width});
}

template <typename T> T* writable(const Sequence<T>& s, int64_t token) {
    return const_cast<T*>(s.row(token));
}

// (D, N) rows of one block as N vectors across its channels, and back.
template <typename T>
void gather_states(const T* from, int64_t N, int count, Vec<T>* to, T factor) {
    for (int64_t n = 0; n < N; ++n) {
        Vec<T> v = {};
        if (from)
            for (int i = 0; i < count; ++i) v[i] = from[i * N + n] * factor;
        to[n] = v;
    }
}

template <typename T> void scatter_states(const Vec<T>* from, int64_t N, int count, T* to) {
    for (int64_t n = 0; n < N; ++n)
        for (int i = 0; i < count; ++i) to[i * N + n] = from[n][i];
}

// What a segment keeps of its blocks, one after the other, in the workspace.
template <typename T> struct Owned {
    Vec<T>* rate;       // A log2(e), N a block
    Vec<T>* state;      // N a block: states, or their gradients on the way back
    Vec<T>* dt_weight;  // rank a block
    T* largest;         // the largest |rate| of a block
    T* end;
};

template <typename T> int block_lanes(const ScanProblem& p, int64_t block) {
    const int64_t left = p.channels - block * Simd<T>::lanes;
    return left < Simd<T>::lanes ? static_cast<int>(left) : Simd<T>::lanes;
}

template <typename T> int64_t num_blocks(const ScanProblem& p) {
    return (p.channels + Simd<T>::lanes - 1) / Simd<T>::lanes;
}

// Steps before and after softplus, and inputs, of up to K tokens of one block.
template <typename T> struct Inputs {
    Vec<T> raw[K], step[K], u[K];
    bool normal;  // whether 2^(step * rate) is a normal number throughout
};

template <typename T> T largest_magnitude(const Vec<T>* vectors, int64_t count) {
    T largest = 0;
    for (int64_t n = 0; n < count; ++n)
        for (int i = 0; i < Simd<T>::lanes; ++i) {
            const T magnitude = vectors[n][i] < 0 ? -vectors[n][i] : vectors[n][i];
            if (!(magnitude <= largest)) largest = magnitude;
        }
    return largest;
}

// Lays out the workspace and fills it for the blocks of a segment; the states begin at `states`,
// (D, N), or at 0.
template <typename T>
Owned<T> take_blocks(const ScanProblem& p, Range segment, const T* states, void* workspace) {
    const int64_t N = p.state, owned = segment.end - segment.first;
    Owned<T> own;
    own.rate = static_cast<Vec<T>*>(workspace);
    own.state = own.rate + owned * N;
    own.dt_weight = own.state + owned * N;
    own.largest = reinterpret_cast<T*>(own.dt_weight + owned * p.rank);
    own.end = own.largest + owned;
    const T *A = static_cast<const T*>(p.A), *weight = static_cast<const T*>(p.dt_weight);
    for (int64_t k = 0; k < owned; ++k) {
        const int64_t channel = (segment.first + k) * Simd<T>::lanes;
        const int count = block_lanes<T>(p, segment.first + k);
        Vec<T>* rate = own.rate + k * N;
        gather_states<T>(A + channel * N, N, count, rate, p.A_is_log ? T(1) : T(kLog2e));
        if (p.A_is_log)
            for (int64_t n = 0; n < N; ++n)
                rate[n] = rate[n] == rate[n] ? exp_of<T>(held<T>(rate[n])) * T(-kLog2e) : rate[n];
        own.largest[k] = largest_magnitude<T>(rate, N);
        gather_states<T>(states ? states + channel * N : nullptr, N, count, own.state + k * N, T(1));
        gather_states<T>(weight ? weight + channel * p.rank : nullptr, p.rank, count,
                         own.dt_weight + k * p.rank, T(1));
    }
    return own;
}

// Elements of the workspace take_blocks lays out for all blocks.
template <typename T> int64_t owned_elements(const ScanProblem& p) {
    return num_blocks<T>(p) * (Simd<T>::lanes * (2 * p.state + p.rank) + 1);
}

// delta = dt dt_weight^T of a chunk, four tokens at a time.
template <typename T>
inline void multiply_dt(const Sequence<T>& dt, int64_t first, int tokens, int64_t rank,
                        const Vec<T>* weight, Vec<T>* delta) {
    constexpr int together = 4;
    int t = 0;
    for (; t + together <= tokens; t += together) {
        Vec<T> sum[together] = {};
        const T* row = dt.row(first + t);
        for (int64_t r = 0; r < rank; ++r)
#pragma GCC unroll 4
            for (int i = 0; i < together; ++i) sum[i] += row[i * dt.stride + r] * weight[r];
        for (int i = 0; i < together; ++i) delta[t + i] = sum[i];
    }
    for (; t < tokens; ++t) {
        Vec<T> sum = {};
        for (int64_t r = 0; r < rank; ++r) sum += dt.row(first + t)[r] * weight[r];
        delta[t] = sum;
    }
}

// The rows of u and delta, stored as S, and of dt.
template <typename T, typename S = T> struct InputRows {
    Sequence<S> u, delta;
    Sequence<T> dt;
    explicit InputRows(const ScanProblem& p)
        : u(sequence<S>(p, p.u)), delta(sequence<S>(p, p.delta)), dt(sequence<T>(p, p.dt)) {}
};

// Asks for the rows [first, first + tokens) of a block before they are needed: a processor does not
// foresee reads one row apart.
template <typename T>
inline void prefetch(const Sequence<T>& s, int64_t first, int64_t tokens, int64_t channel) {
    constexpr int64_t line = 64 / sizeof(T);
    if (!s.start || channel % line) return;
    for (int64_t t = 0; t < tokens; ++t) __builtin_prefetch(s.row(first + t) + channel);
}

template <typename T, typename S>
inline void read_inputs(const ScanProblem& p, const InputRows<T, S>& rows, const Owned<T>& own,
                        int64_t k, int64_t first, int tokens, int64_t channel, int count,
                        Inputs<T>& in) {
    const T limit = Simd<T>::normal_powers / own.largest[k];  // infinite where all rates are 0
    typename Simd<T>::Integer within = ~typename Simd<T>::Integer{};
    const T* bias_data = static_cast<const T*>(p.delta_bias);
    const Vec<T> bias = bias_data ? load<T>(bias_data + channel, count) : Vec<T>{};
    if (p.dt.data)
        multiply_dt<T>(rows.dt, first, tokens, p.rank, own.dt_weight + k * p.rank, in.raw);
    else
        for (int t = 0; t < tokens; ++t)
            in.raw[t] = load<T>(rows.delta.row(first + t) + channel, count);
    for (int t = 0; t < tokens; ++t) {
        const Vec<T> raw = in.raw[t] = in.raw[t] + bias;
        in.step[t] = p.delta_softplus ? softplus<T>(raw) : raw;
        in.u[t] = load<T>(rows.u.row(first + t) + channel, count);
        within &= (in.step[t] < limit) & (in.step[t] > -limit);
    }
    in.normal = true;
    for (int i = 0; i < Simd<T>::lanes; ++i) in.normal &= within[i] != 0;
}

// Where the forward leaves the states of one block before a chunk.
template <typename T>
T* checkpoint(const ScanProblem& p, int64_t chunk, int64_t block) {
    return static_cast<T*>(p.checkpoints) +
           (chunk * num_blocks<T>(p) + block) * p.state * Simd<T>::lanes;
}

}  // namespace
