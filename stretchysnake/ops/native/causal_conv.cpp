// Depth-wise causal convolution and SiLU in one pass, forward and backward; per instruction set.
//
// Symbols: B batch, L tokens, D channels, W kernel width, V lanes of a vector, block = V channels.
#include <type_traits>

#include "kernels.h"
#include "projection.h"
#include "vector_math.h"

namespace KERNEL_NAMESPACE {
namespace {

// The rows of the sequence in reading order: mirrored where reverse is set.
template <typename T> struct Reader {
    T* start;
    int64_t stride;
    T* row(int64_t token) const { return start + token * stride; }
    Reader(const ConvProblem& p, const Rows& rows) {
        start = static_cast<T*>(rows.data);
        stride = rows.row_stride;
        if (p.reverse) {
            start += (p.length - 1) * stride;
            stride = -stride;
        }
    }
};

template <typename T> int block_lanes(const ConvProblem& p, int64_t block) {
    const int64_t left = p.channels - block * Simd<T>::lanes;
    return left < Simd<T>::lanes ? static_cast<int>(left) : Simd<T>::lanes;
}

// (D, W) rows of one block as W vectors across its channels.
template <typename T>
void gather_taps(const ConvProblem& p, int64_t channel, int count, Vec<T>* taps) {
    const T* weight = static_cast<const T*>(p.weight) + channel * p.width;
    for (int64_t k = 0; k < p.width; ++k) {
        Vec<T> v = {};
        for (int i = 0; i < count; ++i) v[i] = weight[i * p.width + k];
        taps[k] = v;
    }
}

// The width the published models have is known at compile time; 0 stands for any other.
constexpr int kUsualWidth = 4;

// bias + sum_k taps[k] * x_{t - W + 1 + k}; rows before the first token are absent.
template <typename T, int known_width, typename S>
inline Vec<T> convolve(const Reader<S>& x, const Vec<T>* taps, Vec<T> bias, int64_t width,
                       int64_t t, int64_t channel, int count) {
    Vec<T> sum = bias;
    if (known_width && t >= known_width - 1) {
        const S* from = x.row(t - known_width + 1) + channel;
#pragma GCC unroll 8
        for (int k = 0; k < known_width; ++k) sum += taps[k] * load<T>(from + k * x.stride, count);
        return sum;
    }
    for (int64_t k = t < width - 1 ? width - 1 - t : 0; k < width; ++k)
        sum += taps[k] * load<T>(x.row(t - width + 1 + k) + channel, count);
    return sum;
}

// Tokens that all blocks pass over before the next ones: their rows stay in the cache.
constexpr int64_t kPiece = 16;

// Where rows of T are kept in the workspace, behind the taps of `blocks` blocks.
template <typename T> T* wide_rows(void* workspace, int64_t blocks, int64_t width) {
    return reinterpret_cast<T*>(static_cast<Vec<T>*>(workspace) + blocks * (width + 1));
}

// x and y are stored as S.
template <typename T, typename S, int known_width>
void forward(const ConvProblem& p, int64_t first, int64_t end, void* workspace) {
    const int64_t W = known_width ? known_width : p.width;
    const int64_t blocks = (p.channels + Simd<T>::lanes - 1) / Simd<T>::lanes;
    const Reader<S> x(p, p.x);
    const Reader<S> y(p, Rows{p.y, 0, p.channels});
    constexpr bool narrow = !std::is_same<T, S>::value;
    Vec<T>* taps = static_cast<Vec<T>*>(workspace);  // blocks * (W + 1), the bias last
    T* wide = wide_rows<T>(workspace, blocks, W);    // of a piece, as they will be read again
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t channel = block * Simd<T>::lanes;
        const int count = block_lanes<T>(p, block);
        gather_taps<T>(p, channel, count, taps + block * (W + 1));
        taps[block * (W + 1) + W] =
            p.bias ? load<T>(static_cast<const T*>(p.bias) + channel, count) : Vec<T>{};
    }
    for (int64_t piece = first; piece < end; piece += kPiece) {
        const int64_t last = piece + kPiece < end ? piece + kPiece : end;
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t channel = block * Simd<T>::lanes;
            const int count = block_lanes<T>(p, block);
            const Vec<T>* tap = taps + block * (W + 1);
            for (int64_t t = piece; t < last; ++t) {
                const Vec<T> sum = convolve<T, known_width>(x, tap, tap[W], W, t, channel, count);
                store<T>(y.row(t) + channel, sum * sigmoid<T>(sum), count);
                if (narrow && p.projection)
                    store<T>(wide + (t - piece) * p.channels + channel,
                             load<T>(y.row(t) + channel, count), count);
            }
        }
        if (!p.projection) continue;
        const T* rows[kPiece];
        T* out[kPiece];
        const Reader<T> projected(p, p.projected);
        for (int64_t t = piece; t < last; ++t) {
            rows[t - piece] = narrow ? wide + (t - piece) * p.channels
                                     : reinterpret_cast<const T*>(y.row(t));
            out[t - piece] = projected.row(t);
        }
        project<T>(rows, out, static_cast<int>(last - piece),
                   static_cast<const T*>(p.projection), p.channels, p.outputs);
    }
}

// Adds to `group` rows of one block what their gradients of the projection, rows of P, leave there.
template <typename T, int group>
inline void add_projected(const T* const* grads, const T* weight, int64_t D, int64_t P, int count,
                          Vec<T>* into) {
    Vec<T> sum[group];
    for (int i = 0; i < group; ++i) sum[i] = into[i];
    for (int64_t output = 0; output < P; ++output) {
        const Vec<T> row = load<T>(weight + output * D, count);
#pragma GCC unroll 8
        for (int i = 0; i < group; ++i) sum[i] += grads[i][output] * row;
    }
    for (int i = 0; i < group; ++i) into[i] = sum[i];
}

// Adds the gradient of `group` rows of the projection, of one block and some tokens.
template <typename T, int group>
inline void add_projection_gradient(const T* const* grads, const Vec<T>* y, int tokens,
                                    int64_t output, Vec<T>* sums) {
    Vec<T> sum[group];
    for (int i = 0; i < group; ++i) sum[i] = sums[output + i];
    for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 8
        for (int i = 0; i < group; ++i) sum[i] += grads[t][output + i] * y[t];
    for (int i = 0; i < group; ++i) sums[output + i] = sum[i];
}

constexpr int kProjectedTogether = 8;  // sums in registers

template <typename T, int known_width>
void backward(const ConvProblem& p, Range segment, void* sums, void* workspace) {
    using V = Vec<T>;
    const int64_t W = known_width ? known_width : p.width, L = p.length;
    const int64_t owned = segment.end - segment.first, P = p.projection ? p.outputs : 0;
    const Reader<T> x(p, p.x), grad_y(p, p.grad_y), grad_x(p, p.grad_x), projected(p, p.projected);
    V* all_taps = static_cast<V*>(workspace);  // owned * W
    V* all_recent = all_taps + owned * W;      // gradients before SiLU of the last W tokens
    for (int64_t k = 0; k < owned; ++k) {
        const int64_t block = segment.first + k;
        gather_taps<T>(p, block * Simd<T>::lanes, block_lanes<T>(p, block), all_taps + k * W);
    }
    memset(static_cast<void*>(all_recent), 0, owned * W * sizeof(V));
    // Token t's gradient reaches x_{t-W+1} .. x_t, so x_s is complete once t = s + W - 1.
    for (int64_t first = 0; first < L + W - 1; first += kPiece)
        for (int64_t b = 0; b < owned; ++b) {
            const int64_t block = segment.first + b, channel = block * Simd<T>::lanes;
            const int count = block_lanes<T>(p, block);
            const V* taps = all_taps + b * W;
            V* recent = all_recent + b * W;  // recent[k] of token t - k
            const V bias = p.bias ? load<T>(static_cast<const T*>(p.bias) + channel, count) : V{};
            V* sum = static_cast<V*>(sums) + block * (W + 1 + P);
            const int64_t end = first + kPiece < L + W - 1 ? first + kPiece : L + W - 1;
            const int tokens = static_cast<int>((end < L ? end : L) - first);  // none behind the last
            V into_y[kPiece], y[kPiece];
            const T* grads[kPiece];
            for (int t = 0; t < tokens; ++t) {
                into_y[t] = load<T>(grad_y.row(first + t) + channel, count);
                grads[t] = projected.row(first + t);
            }
            if (P) {
                const T* weight = static_cast<const T*>(p.projection) + channel;
                int t = 0;
                for (; t + kProjectedTogether <= tokens; t += kProjectedTogether)
                    add_projected<T, kProjectedTogether>(grads + t, weight, p.channels, P, count,
                                                         into_y + t);
                for (; t < tokens; ++t)
                    add_projected<T, 1>(grads + t, weight, p.channels, P, count, into_y + t);
            }
            for (int64_t t = first; t < end; ++t) {
                V g = {};
                if (t < L) {
                    const V pre = convolve<T, known_width>(x, taps, bias, W, t, channel, count);
                    const V s = sigmoid<T>(pre);
                    g = into_y[t - first] * s * (T(1) + pre * (T(1) - s));
                    y[t - first] = pre * s;
                    for (int64_t k = t < W - 1 ? W - 1 - t : 0; k < W; ++k)
                        sum[k] += g * load<T>(x.row(t - W + 1 + k) + channel, count);
                    sum[W] += g;
                }
                recent[0] = g;
                V into_x = taps[0] * g;
                for (int64_t k = W - 1; k >= 1; --k) {
                    into_x += taps[k] * recent[k];
                    recent[k] = recent[k - 1];
                }
                if (t < W - 1) continue;
                T* to = grad_x.row(t - W + 1) + channel;
                store<T>(to, p.adds ? load<T>(to, count) + into_x : into_x, count);
            }
            V* into_projection = sum + W + 1;
            int64_t output = 0;
            for (; output + kProjectedTogether <= P; output += kProjectedTogether)
                add_projection_gradient<T, kProjectedTogether>(grads, y, tokens, output,
                                                               into_projection);
            for (; output < P; ++output)
                add_projection_gradient<T, 1>(grads, y, tokens, output, into_projection);
        }
}

}  // namespace

int64_t conv_workspace(const ConvProblem& p) {
    const int64_t lanes = p.is_double ? Simd<double>::lanes : Simd<float>::lanes;
    const int64_t blocks = (p.channels + lanes - 1) / lanes;
    const int64_t wide = p.is_bf16 ? kPiece * p.channels : 0;
    return lanes * blocks * (p.width + 1) * 2 + wide;
}

void conv_forward(const ConvProblem& p, Range tokens, void* workspace) {
    // the range is in the caller's order
    const int64_t first = p.reverse ? p.length - tokens.end : tokens.first;
    const int64_t end = p.reverse ? p.length - tokens.first : tokens.end;
    if (p.is_double)
        forward<double, double, 0>(p, first, end, workspace);
    else if (p.is_bf16 && p.width == kUsualWidth)
        forward<float, BFloat16, kUsualWidth>(p, first, end, workspace);
    else if (p.is_bf16)
        forward<float, BFloat16, 0>(p, first, end, workspace);
    else if (p.width == kUsualWidth)
        forward<float, float, kUsualWidth>(p, first, end, workspace);
    else
        forward<float, float, 0>(p, first, end, workspace);
}

void conv_backward(const ConvProblem& p, Range segment, void* sums, void* workspace) {
    if (p.is_double)
        backward<double, 0>(p, segment, sums, workspace);
    else if (p.width == kUsualWidth)
        backward<float, kUsualWidth>(p, segment, sums, workspace);
    else
        backward<float, 0>(p, segment, sums, workspace);
}

}  // namespace KERNEL_NAMESPACE
