// The selective scan, forward and backward, on blocks of V channels; compiled per instruction set.
//
// Symbols: B batch, L tokens, D channels, N state size, K tokens of a chunk, V lanes of a vector.
// Order of the loops: chunk of K tokens, block of V channels, token, state. A chunk's rows stay in
// the cache while all blocks pass over them; nothing of size L * D * N is ever stored.
#include "kernels.h"
#include "vector_math.h"

namespace KERNEL_NAMESPACE {
namespace {

constexpr int64_t K = kCheckpointTokens;
#ifndef TOG
#define TOG 4
#endif
constexpr int kTogether = TOG;  // states advanced together

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
    bool moderate;  // whether |step * rate| < 2^20 throughout, so that exp2 may take its short way
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
    const T limit = T(1 << 20) / largest_rate;
    typename Simd<T>::Integer within = ~typename Simd<T>::Integer{};
    const T* bias_data = static_cast<const T*>(p.delta_bias);
    const Vec<T> bias = bias_data ? load<T>(bias_data + channel, count) : Vec<T>{};
    for (int t = 0; t < tokens; ++t) {
        const Vec<T> raw = load<T>(delta.row(first + t) + channel, count) + bias;
        in.step[t] = p.delta_softplus ? softplus<T>(raw) : raw;
        in.u[t] = load<T>(u.row(first + t) + channel, count);
        within &= (in.step[t] < limit) & (in.step[t] > -limit);
    }
    in.moderate = true;
    for (int i = 0; i < Simd<T>::lanes; ++i) in.moderate &= within[i] != 0;
}

// Advances `states` states of one block over a chunk, adding C . h to y; they live in registers.
template <typename T, int states, bool moderate>
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
            state[i] = exp2_of<T, moderate>(in.step[t] * rate[i]) * state[i] + input[t] * B_row[i];
            sum += state[i] * C_row[i];
        }
        y[t] = sum;
    }
    for (int i = 0; i < states; ++i) h[n + i] = state[i];
}

template <typename T, bool moderate>
inline void advance_all(const Vec<T>* rate, Vec<T>* h, const Inputs<T>& in, const Vec<T>* input,
                        Sequence<T> B, Sequence<T> C, int64_t first, int tokens, int64_t N,
                        Vec<T>* y) {
    int64_t n = 0;
    for (; n + kTogether <= N; n += kTogether)
        advance<T, kTogether, moderate>(rate, h, in, input, B, C, first, tokens, n, y);
    for (; n < N; ++n) advance<T, 1, moderate>(rate, h, in, input, B, C, first, tokens, n, y);
}

template <typename T> void forward(const ScanProblem& p, Segment segment, void* workspace) {
    using V = Vec<T>;
    constexpr int lanes = Simd<T>::lanes;
    const int64_t N = p.state, L = p.length, b = segment.batch_index;
    const int64_t blocks = num_blocks<T>(p), owned = segment.end_block - segment.first_block;
    const auto u = sequence<T>(p, p.u, b), delta = sequence<T>(p, p.delta, b);
    const auto B = sequence<T>(p, p.B, b), C = sequence<T>(p, p.C, b), z = sequence<T>(p, p.z, b);
    const auto y_rows = dense<T>(p, p.y, b, p.channels);
    const T *A = static_cast<const T*>(p.A), *D = static_cast<const T*>(p.D);
    const T* initial = static_cast<const T*>(p.initial_state);
    V* rate = static_cast<V*>(workspace);
    V* state = rate + owned * N;
    T* largest = reinterpret_cast<T*>(state + owned * N);

    for (int64_t k = 0; k < owned; ++k) {
        const int64_t channel = (segment.first_block + k) * lanes;
        const int count = block_lanes<T>(p, segment.first_block + k);
        gather_states<T>(A + channel * N, N, count, rate + k * N, T(1.4426950408889634));
        largest[k] = largest_magnitude<T>(rate + k * N, N);
        gather_states<T>(initial ? initial + (b * p.channels + channel) * N : nullptr, N, count,
                         state + k * N, T(1));
    }
    const int64_t chunks = (L + K - 1) / K;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * K;
        const int tokens = static_cast<int>(L - first < K ? L - first : K);
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first_block + k, channel = block * lanes;
            const int count = block_lanes<T>(p, block);
            V* h = state + k * N;
            if (p.checkpoints)
                memcpy(static_cast<T*>(p.checkpoints) + ((b * chunks + chunk) * blocks + block) * N * lanes,
                       h, N * sizeof(V));
            Inputs<T> in;
            V input[K], y[K];
            read_inputs<T>(p, u, delta, first, tokens, channel, count, largest[k], in);
            const V skip = D ? load<T>(D + channel, count) : V{};
            for (int t = 0; t < tokens; ++t) {
                input[t] = in.step[t] * in.u[t];
                y[t] = D ? skip * in.u[t] : V{};
            }
            if (in.moderate)
                advance_all<T, true>(rate + k * N, h, in, input, B, C, first, tokens, N, y);
            else
                advance_all<T, false>(rate + k * N, h, in, input, B, C, first, tokens, N, y);
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
            const int64_t block = segment.first_block + k;
            scatter_states<T>(
                state + k * N, N, block_lanes<T>(p, block),
                static_cast<T*>(p.final_state) + (b * p.channels + block * lanes) * N);
        }
}

// Backward. With g_t the gradient of h_t (through C_t and through h_{t+1}):
//   dC_t += h_t dy_t              dB_t += g_t step_t u_t        d(step_t u_t) += g_t B_t
//   d(step_t A) = g_t h_{t-1} exp(step_t A)                     g_{t-1} = g_t exp(step_t A)
template <typename T>
void backward(const ScanProblem& p, Segment segment, const ScanSums& sums, void* workspace) {
    using V = Vec<T>;
    constexpr int lanes = Simd<T>::lanes;
    const int64_t N = p.state, L = p.length, b = segment.batch_index;
    const int64_t blocks = num_blocks<T>(p), owned = segment.end_block - segment.first_block;
    const auto u = sequence<T>(p, p.u, b), delta = sequence<T>(p, p.delta, b);
    const auto B = sequence<T>(p, p.B, b), C = sequence<T>(p, p.C, b), z = sequence<T>(p, p.z, b);
    const auto grad_y = sequence<T>(p, p.grad_y, b);
    const auto grad_u = dense<T>(p, p.grad_u, b, p.channels);
    const auto grad_delta = dense<T>(p, p.grad_delta, b, p.channels);
    const auto grad_z = dense<T>(p, p.grad_z, b, p.channels);
    const auto grad_B = dense<T>(p, sums.B, 0, N);
    const auto grad_C = dense<T>(p, sums.C, 0, N);
    const T *A = static_cast<const T*>(p.A), *D = static_cast<const T*>(p.D);
    const T* bias = static_cast<const T*>(p.delta_bias);
    const T* grad_final = static_cast<const T*>(p.grad_final_state);
    V *sum_A = static_cast<V*>(sums.A), *sum_D = static_cast<V*>(sums.D);
    V* sum_bias = static_cast<V*>(sums.delta_bias);

    V* rates = static_cast<V*>(workspace);  // A log2(e), owned * N
    V* adjoint = rates + owned * N;         // g, owned * N
    V* states = adjoint + owned * N;        // h before the chunk and after each token: (K + 1) * N
    V* decays = states + (K + 1) * N;       // K * N
    V* chunk_B = decays + K * N;            // gradient of B across lanes, summed over blocks: K * N
    V* chunk_C = chunk_B + K * N;
    T* largest = reinterpret_cast<T*>(chunk_C + K * N);

    for (int64_t k = 0; k < owned; ++k) {
        const int64_t channel = (segment.first_block + k) * lanes;
        const int count = block_lanes<T>(p, segment.first_block + k);
        gather_states<T>(A + channel * N, N, count, rates + k * N, T(1.4426950408889634));
        largest[k] = largest_magnitude<T>(rates + k * N, N);
        gather_states<T>(grad_final ? grad_final + (b * p.channels + channel) * N : nullptr, N,
                         count, adjoint + k * N, T(1));
    }
    const int64_t chunks = (L + K - 1) / K;
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        const int64_t first = chunk * K;
        const int tokens = static_cast<int>(L - first < K ? L - first : K);
        memset(static_cast<void*>(chunk_B), 0, 2 * K * N * sizeof(V));
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first_block + k, channel = block * lanes;
            const int count = block_lanes<T>(p, block);
            const V* rate = rates + k * N;
            V* g = adjoint + k * N;
            Inputs<T> in;
            V input[K], grad_out[K];
            read_inputs<T>(p, u, delta, first, tokens, channel, count, largest[k], in);
            const V skip = D ? load<T>(D + channel, count) : V{};
            memcpy(states,
                   static_cast<const T*>(p.checkpoints) + ((b * chunks + chunk) * blocks + block) * N * lanes,
                   N * sizeof(V));
            for (int t = 0; t < tokens; ++t) {
                input[t] = in.step[t] * in.u[t];
                const T *B_row = B.row(first + t), *C_row = C.row(first + t);
                const V* before = states + t * N;
                V *after = states + (t + 1) * N, *decay = decays + t * N, y = skip * in.u[t];
                const V step = in.step[t], x = input[t];
                if (in.moderate)
                    for (int64_t n = 0; n < N; ++n)
                        decay[n] = exp2_of<T, true>(step * rate[n]);
                else
                    for (int64_t n = 0; n < N; ++n)
                        decay[n] = exp2_of<T, false>(step * rate[n]);
                for (int64_t n = 0; n < N; ++n) {
                    after[n] = decay[n] * before[n] + x * B_row[n];
                    y += after[n] * C_row[n];
                }
                grad_out[t] = load<T>(grad_y.row(first + t) + channel, count);
                if (p.z.data) {
                    const V gate = load<T>(z.row(first + t) + channel, count);
                    const V s = sigmoid<T>(gate);
                    store<T>(writable(grad_z, first + t) + channel,
                             grad_out[t] * y * s * (T(1) + gate * (T(1) - s)), count);
                    grad_out[t] *= gate * s;
                }
            }
            V grad_skip = {}, grad_bias = {};
            const V shift = bias ? load<T>(bias + channel, count) : V{};
            for (int t = tokens - 1; t >= 0; --t) {
                const T *B_row = B.row(first + t), *C_row = C.row(first + t);
                const V *before = states + t * N, *after = before + N, *decay = decays + t * N;
                V *row_B = chunk_B + t * N, *row_C = chunk_C + t * N, *into_A = sum_A + block * N;
                const V out = grad_out[t], x = input[t], step = in.step[t];
                V grad_input = {}, grad_step = {};
                for (int64_t n = 0; n < N; ++n) {
                    const V gn = g[n] + out * C_row[n];
                    row_C[n] += after[n] * out;
                    row_B[n] += gn * x;
                    grad_input += gn * B_row[n];
                    const V carried = gn * decay[n];
                    const V grad_exponent = carried * before[n];
                    grad_step += grad_exponent * rate[n];
                    into_A[n] += grad_exponent * step;
                    g[n] = carried;
                }
                V grad_delta_t = grad_step * T(0.6931471805599453) + grad_input * in.u[t];
                if (p.delta_softplus)
                    grad_delta_t *= sigmoid<T>(load<T>(delta.row(first + t) + channel, count) + shift);
                store<T>(writable(grad_delta, first + t) + channel, grad_delta_t, count);
                store<T>(writable(grad_u, first + t) + channel, grad_input * step + skip * out,
                         count);
                grad_skip += out * in.u[t];
                grad_bias += grad_delta_t;
            }
            sum_D[block] += grad_skip;
            sum_bias[block] += grad_bias;
        }
        for (int t = 0; t < tokens; ++t)
            for (int64_t n = 0; n < N; ++n) {
                writable(grad_B, first + t)[n] = sum_lanes<T>(chunk_B[t * N + n]);
                writable(grad_C, first + t)[n] = sum_lanes<T>(chunk_C[t * N + n]);
            }
    }
    if (p.grad_initial_state)
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first_block + k;
            scatter_states<T>(
                adjoint + k * N, N, block_lanes<T>(p, block),
                static_cast<T*>(p.grad_initial_state) + (b * p.channels + block * lanes) * N);
        }
}

}  // namespace

int64_t scan_workspace(const ScanProblem& p, bool backward) {
    const int64_t lanes = p.is_double ? Simd<double>::lanes : Simd<float>::lanes;
    const int64_t blocks = p.is_double ? num_blocks<double>(p) : num_blocks<float>(p);
    return lanes * p.state * (2 * blocks + (backward ? 4 * K + 1 : 0)) + blocks;
}

void scan_forward(const ScanProblem& p, Segment segment, void* workspace) {
    p.is_double ? forward<double>(p, segment, workspace) : forward<float>(p, segment, workspace);
}

void scan_backward(const ScanProblem& p, Segment segment, const ScanSums& sums, void* workspace) {
    p.is_double ? backward<double>(p, segment, sums, workspace)
                : backward<float>(p, segment, sums, workspace);
}

}  // namespace KERNEL_NAMESPACE
