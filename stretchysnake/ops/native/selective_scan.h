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

// The rows of one sequence in reading order.
template <typename T> Sequence<T> sequence(const ScanProblem& p, const Rows& rows, int64_t b) {
    const T* start = static_cast<const T*>(rows.data);
    if (!start) return {nullptr, 0};
    start += b * rows.batch_stride;
    if (p.reverse) return {start + (p.length - 1) * rows.row_stride, -rows.row_stride};
    return {start, rows.row_stride};
}

template <typename T> Sequence<T> dense(const ScanProblem& p, void* data, int64_t b, int64_t width) {
    return sequence<T>(p, Rows{data, p.length * width, width}, b);
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

template <typename T> int block_lanes(const ScanProblem& p, int64_t block) {
    const int64_t left = p.channels - block * Simd<T>::lanes;
    return left < Simd<T>::lanes ? static_cast<int>(left) : Simd<T>::lanes;
}

template <typename T> int64_t num_blocks(const ScanProblem& p) {
    return (p.channels + Simd<T>::lanes - 1) / Simd<T>::lanes;
}

// Steps after bias and softplus, and inputs, of up to K tokens of one block.
template <typename T> struct Inputs {
    Vec<T> step[K], u[K];
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

template <typename T>
inline void read_inputs(const ScanProblem& p, const Sequence<T>& u, const Sequence<T>& delta,
                        int64_t first, int tokens, int64_t channel, int count, T largest_rate,
                        Inputs<T>& in) {
    const T limit = Simd<T>::normal_powers / largest_rate;  // infinite where all rates are 0
    typename Simd<T>::Integer within = ~typename Simd<T>::Integer{};
    const T* bias_data = static_cast<const T*>(p.delta_bias);
    const Vec<T> bias = bias_data ? load<T>(bias_data + channel, count) : Vec<T>{};
    for (int t = 0; t < tokens; ++t) {
        const Vec<T> raw = load<T>(delta.row(first + t) + channel, count) + bias;
        in.step[t] = p.delta_softplus ? softplus<T>(raw) : raw;
        in.u[t] = load<T>(u.row(first + t) + channel, count);
        within &= (in.step[t] < limit) & (in.step[t] > -limit);
    }
    in.normal = true;
    for (int i = 0; i < Simd<T>::lanes; ++i) in.normal &= within[i] != 0;
}

// Where the forward leaves the states of one block before a chunk.
template <typename T>
T* checkpoint(const ScanProblem& p, int64_t b, int64_t chunk, int64_t block) {
    const int64_t chunks = (p.length + K - 1) / K;
    return static_cast<T*>(p.checkpoints) +
           ((b * chunks + chunk) * num_blocks<T>(p) + block) * p.state * Simd<T>::lanes;
}

}  // namespace
