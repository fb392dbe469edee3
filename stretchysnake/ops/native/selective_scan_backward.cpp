// Backward of the selective scan on blocks of V channels; compiled per instruction set.
//
// Symbols and order of the loops: selective_scan.h. With g_t the gradient of h_t, through C_t and
// through h_{t+1}:
//   dC_t += h_t dy_t              dB_t += g_t step_t u_t        d(step_t u_t) += g_t B_t
//   d(step_t A) = g_t h_{t-1} exp(step_t A)                     g_{t-1} = g_t exp(step_t A)
// A chunk's states are computed again from its checkpoint before it is read backwards, kTogether
// of them at a time, so that what they leave stays in the first cache. Where delta is given by its
// factors, its gradient goes on to them at once and is never stored.
#include "selective_scan.h"

namespace KERNEL_NAMESPACE {
namespace {

// One chunk of one block; `grad_B`, `grad_C` (K * N) and `grad_dt` (K * rank) are not yet summed over lanes.
template <typename T> struct Chunk {
    Vec<T> *grad_B, *grad_C, *grad_dt;
    Sequence<T> B, C;
    int64_t first, N;
    int tokens;
    Inputs<T> in;
    Vec<T> input[K];                     // step u
    Vec<T> y[K];                         // output before the gate
    Vec<T> grad_y[K];                    // its gradient
    Vec<T> grad_gate[K];                 // of the gate, but for the factor y
    Vec<T> grad_input[K], grad_step[K];  // of step u, and of step through the decay (log2 scale)
    Vec<T> states[(K + 1) * kTogether];  // h before the chunk and after each token, of a group
    Vec<T> decays[K * kTogether];        // exp(step A), of a group
};

// Computes the states [n, n + group) of a chunk again, adding C . h to y.
template <typename T, int group, bool normal>
inline void recompute(Chunk<T>& c, const Vec<T>* rate, const Vec<T>* before, int64_t n) {
    Vec<T> state[group];
    for (int i = 0; i < group; ++i) c.states[i] = state[i] = before[n + i];
    for (int t = 0; t < c.tokens; ++t) {
        const T *B_row = c.B.row(c.first + t) + n, *C_row = c.C.row(c.first + t) + n;
        Vec<T>*decay = c.decays + t * group, *after = c.states + (t + 1) * group;
        const Vec<T> step = c.in.step[t], input = c.input[t];
        Vec<T> sum = c.y[t];
#pragma GCC unroll 4
        for (int i = 0; i < group; ++i) {
            const Vec<T> a = exp2_of<T, normal>(step * rate[n + i]);
            decay[i] = a;
            state[i] = a * state[i] + input * B_row[i];
            after[i] = state[i];
            sum += state[i] * C_row[i];
        }
        c.y[t] = sum;
    }
}

// Reads the states [n + from, n + from + few) of a recomputed group backwards.
template <typename T, int group, int few>
inline void retreat(Chunk<T>& c, const Vec<T>* rate, int64_t n, int from, Vec<T>* g,
                    Vec<T>* sum_A) {
    n += from;
    Vec<T> adjoint[few], into_A[few];
    for (int i = 0; i < few; ++i) adjoint[i] = g[n + i], into_A[i] = sum_A[n + i];
    for (int t = c.tokens - 1; t >= 0; --t) {
        const T *B_row = c.B.row(c.first + t) + n, *C_row = c.C.row(c.first + t) + n;
        const Vec<T>*before = c.states + t * group + from, *after = before + group;
        const Vec<T>* decay = c.decays + t * group + from;
        Vec<T>*row_B = c.grad_B + t * c.N + n, *row_C = c.grad_C + t * c.N + n;
        const Vec<T> out = c.grad_y[t], input = c.input[t], step = c.in.step[t];
        Vec<T> grad_input = c.grad_input[t], grad_step = c.grad_step[t];
#pragma GCC unroll 4
        for (int i = 0; i < few; ++i) {
            const Vec<T> gn = adjoint[i] + out * C_row[i];
            row_C[i] += after[i] * out;
            row_B[i] += gn * input;
            grad_input += gn * B_row[i];
            adjoint[i] = gn * decay[i];
            const Vec<T> grad_exponent = adjoint[i] * before[i];
            grad_step += grad_exponent * rate[n + i];
            into_A[i] += grad_exponent * step;
        }
        c.grad_input[t] = grad_input;
        c.grad_step[t] = grad_step;
    }
    for (int i = 0; i < few; ++i) g[n + i] = adjoint[i], sum_A[n + i] = into_A[i];
}

// All states of one block over a chunk; g and sum_A are those of the block.
template <typename T, bool normal>
inline void pass(Chunk<T>& c, const Vec<T>* rate, const Vec<T>* before, Vec<T>* g, Vec<T>* sum_A) {
    constexpr int few = 2;  // with 4, the adjoints no longer fit into 16 registers
    static_assert(kTogether % few == 0);
    int64_t n = 0;
    for (; n + kTogether <= c.N; n += kTogether) {
        recompute<T, kTogether, normal>(c, rate, before, n);
        for (int from = 0; from < kTogether; from += few)
            retreat<T, kTogether, few>(c, rate, n, from, g, sum_A);
    }
    for (; n < c.N; ++n) {
        recompute<T, 1, normal>(c, rate, before, n);
        retreat<T, 1, 1>(c, rate, n, 0, g, sum_A);
    }
}

// The gradient of delta on to `group` columns of dt and of its weight; sum_weight is that of the block.
template <typename T, int group>
inline void into_factors(const Vec<T>* grad_delta, const Sequence<T>& dt, int64_t first, int tokens,
                         int64_t rank, int64_t r, const Vec<T>* weight, Vec<T>* grad_dt,
                         Vec<T>* sum_weight) {
    Vec<T> factor[group], sum[group];
    for (int i = 0; i < group; ++i) factor[i] = weight[r + i], sum[i] = sum_weight[r + i];
    for (int t = 0; t < tokens; ++t) {
        const T* dt_row = dt.row(first + t) + r;
        Vec<T>* grad_row = grad_dt + t * rank + r;
        const Vec<T> grad = grad_delta[t];
#pragma GCC unroll 4
        for (int i = 0; i < group; ++i) {
            grad_row[i] += grad * factor[i];
            sum[i] += grad * dt_row[i];
        }
    }
    for (int i = 0; i < group; ++i) sum_weight[r + i] = sum[i];
}

// Sums over the lanes of `width` vectors a token, to the rows of the sequence.
template <typename T>
inline void sum_rows(const Vec<T>* vectors, int64_t width, int64_t first, int tokens,
                     const Sequence<T>& to) {
    for (int t = 0; t < tokens; ++t) {
        T* row = writable(to, first + t);
        for (int64_t n = 0; n < width; ++n) row[n] = sum_lanes<T>(vectors[t * width + n]);
    }
}

template <typename T>
void backward(const ScanProblem& p, Range segment, const ScanSums& sums, void* workspace) {
    using V = Vec<T>;
    constexpr int lanes = Simd<T>::lanes;
    const int64_t N = p.state, L = p.length, rank = p.dt.data ? p.rank : 0;
    const int64_t owned = segment.end - segment.first;
    const InputRows<T> rows(p);
    const auto z = sequence<T>(p, p.z), grad_y = sequence<T>(p, p.grad_y);
    const auto grad_u = dense<T>(p, p.grad_u, p.channels);
    const auto grad_delta = dense<T>(p, p.grad_delta, p.channels);
    const auto grad_z = sequence<T>(p, p.grad_z);
    const auto grad_B = sequence<T>(p, sums.B), grad_C = sequence<T>(p, sums.C);
    const auto grad_dt = sequence<T>(p, sums.dt);
    const T* D = static_cast<const T*>(p.D);
    V *sum_A = static_cast<V*>(sums.A), *sum_D = static_cast<V*>(sums.D);
    V *sum_bias = static_cast<V*>(sums.delta_bias), *sum_weight = static_cast<V*>(sums.dt_weight);

    Chunk<T> c;
    c.grad_B = static_cast<V*>(workspace);
    c.grad_C = c.grad_B + K * N;
    c.grad_dt = c.grad_C + K * N;
    c.B = sequence<T>(p, p.B);
    c.C = sequence<T>(p, p.C);
    c.N = N;
    const Owned<T> own = take_blocks<T>(
        p, segment, static_cast<const T*>(p.grad_final_state), c.grad_dt + K * rank);
    for (int64_t chunk = (L + K - 1) / K - 1; chunk >= 0; --chunk) {
        const int64_t first = c.first = chunk * K;
        const int tokens = c.tokens = static_cast<int>(L - first < K ? L - first : K);
        memset(static_cast<void*>(c.grad_B), 0, K * (2 * N + rank) * sizeof(V));
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first + k, channel = block * lanes;
            const int count = block_lanes<T>(p, block);
            const V* rate = own.rate + k * N;
            V* adjoint = own.state + k * N;  // g
            read_inputs<T>(p, rows, own, k, first, tokens, channel, count, c.in);
            const V skip = D ? load<T>(D + channel, count) : V{};
            for (int t = 0; t < tokens; ++t) {
                c.input[t] = c.in.step[t] * c.in.u[t];
                c.y[t] = D ? skip * c.in.u[t] : V{};
                c.grad_input[t] = c.grad_step[t] = V{};
            }
            for (int t = 0; t < tokens; ++t) {
                const V given = load<T>(grad_y.row(first + t) + channel, count);
                c.grad_y[t] = given;
                if (!p.z.data) continue;
                const V gate = load<T>(z.row(first + t) + channel, count), s = sigmoid<T>(gate);
                c.grad_y[t] = given * gate * s;
                c.grad_gate[t] = given * s * (T(1) + gate * (T(1) - s));
            }
            const V* before = reinterpret_cast<const V*>(checkpoint<T>(p, chunk, block));
            if (c.in.normal)
                pass<T, true>(c, rate, before, adjoint, sum_A + block * N);
            else
                pass<T, false>(c, rate, before, adjoint, sum_A + block * N);
            if (p.z.data)
                for (int t = 0; t < tokens; ++t) {
                    T* to = writable(grad_z, first + t) + channel;
                    const V earlier = p.adds ? load<T>(to, count) : V{};
                    store<T>(to, earlier + c.grad_gate[t] * c.y[t], count);
                }

            V grad_skip = {}, grad_bias = {};
            for (int t = 0; t < tokens; ++t) {
                V grad_raw = c.grad_step[t] * T(kLn2) + c.grad_input[t] * c.in.u[t];
                if (p.delta_softplus) grad_raw *= sigmoid<T>(c.in.raw[t]);
                if (p.grad_delta) store<T>(writable(grad_delta, first + t) + channel, grad_raw, count);
                store<T>(writable(grad_u, first + t) + channel,
                         skip * c.grad_y[t] + c.grad_input[t] * c.in.step[t], count);
                grad_skip += c.grad_y[t] * c.in.u[t];
                grad_bias += grad_raw;
                c.grad_step[t] = grad_raw;
            }
            sum_D[block] += grad_skip;
            sum_bias[block] += grad_bias;
            const V* weight = own.dt_weight + k * rank;
            V* into_weight = sum_weight + block * rank;
            int64_t r = 0;
            for (; r + 4 <= rank; r += 4)
                into_factors<T, 4>(c.grad_step, rows.dt, first, tokens, rank, r, weight, c.grad_dt,
                                   into_weight);
            for (; r < rank; ++r)
                into_factors<T, 1>(c.grad_step, rows.dt, first, tokens, rank, r, weight, c.grad_dt,
                                   into_weight);
        }
        sum_rows<T>(c.grad_B, N, first, tokens, grad_B);
        sum_rows<T>(c.grad_C, N, first, tokens, grad_C);
        if (rank) sum_rows<T>(c.grad_dt, rank, first, tokens, grad_dt);
    }
    if (p.grad_initial_state)
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first + k;
            scatter_states<T>(own.state + k * N, N, block_lanes<T>(p, block),
                              static_cast<T*>(p.grad_initial_state) + block * lanes * N);
        }
}

}  // namespace

void scan_backward(const ScanProblem& p, Range segment, const ScanSums& sums, void* workspace) {
    p.is_double ? backward<double>(p, segment, sums, workspace)
                : backward<float>(p, segment, sums, workspace);
}

}  // namespace KERNEL_NAMESPACE
