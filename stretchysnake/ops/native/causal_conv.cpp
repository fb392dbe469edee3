// Depth-wise causal convolution and SiLU in one pass, forward and backward; per instruction set.
//
// Symbols: B batch, L tokens, D channels, W kernel width, V lanes of a vector, block = V channels.
#include "kernels.h"
#include "vector_math.h"

namespace KERNEL_NAMESPACE {
namespace {

// The rows of one sequence in reading order: mirrored where reverse is set.
template <typename T> struct Reader {
    T* start;
    int64_t stride;
    T* row(int64_t token) const { return start + token * stride; }
    Reader(const ConvProblem& p, const Rows& rows, int64_t b) {
        start = static_cast<T*>(rows.data) + b * rows.batch_stride;
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

// bias + sum_k taps[k] * x_{t - W + 1 + k}; rows before the first token are absent.
template <typename T>
inline Vec<T> convolve(const Reader<T>& x, const Vec<T>* taps, Vec<T> bias, int64_t width,
                       int64_t t, int64_t channel, int count) {
    Vec<T> sum = bias;
    for (int64_t k = t < width - 1 ? width - 1 - t : 0; k < width; ++k)
        sum += taps[k] * load<T>(x.row(t - width + 1 + k) + channel, count);
    return sum;
}

template <typename T> void forward(const ConvProblem& p, Segment segment, void* workspace) {
    const int64_t W = p.width, owned = segment.end_block - segment.first_block;
    const Reader<T> x(p, p.x, segment.batch_index);
    const Reader<T> y(p, Rows{p.y, p.length * p.channels, p.channels}, segment.batch_index);
    Vec<T>* taps = static_cast<Vec<T>*>(workspace);  // owned * (W + 1), the bias last
    for (int64_t k = 0; k < owned; ++k) {
        const int64_t block = segment.first_block + k, channel = block * Simd<T>::lanes;
        const int count = block_lanes<T>(p, block);
        gather_taps<T>(p, channel, count, taps + k * (W + 1));
        taps[k * (W + 1) + W] =
            p.bias ? load<T>(static_cast<const T*>(p.bias) + channel, count) : Vec<T>{};
    }
    for (int64_t t = 0; t < p.length; ++t)
        for (int64_t k = 0; k < owned; ++k) {
            const int64_t block = segment.first_block + k, channel = block * Simd<T>::lanes;
            const int count = block_lanes<T>(p, block);
            const Vec<T>* tap = taps + k * (W + 1);
            const Vec<T> sum = convolve<T>(x, tap, tap[W], W, t, channel, count);
            store<T>(y.row(t) + channel, sum * sigmoid<T>(sum), count);
        }
}

template <typename T>
void backward(const ConvProblem& p, Segment segment, void* sums, void* workspace) {
    using V = Vec<T>;
    const int64_t W = p.width, L = p.length;
    const Reader<T> x(p, p.x, segment.batch_index), grad_y(p, p.grad_y, segment.batch_index);
    const Reader<T> grad_x(p, Rows{p.grad_x, L * p.channels, p.channels}, segment.batch_index);
    V* taps = static_cast<V*>(workspace);  // W
    V* recent = taps + W;                  // gradients before SiLU of the last W tokens: W
    for (int64_t block = segment.first_block; block < segment.end_block; ++block) {
        const int64_t channel = block * Simd<T>::lanes;
        const int count = block_lanes<T>(p, block);
        gather_taps<T>(p, channel, count, taps);
        const V bias = p.bias ? load<T>(static_cast<const T*>(p.bias) + channel, count) : V{};
        V* sum = static_cast<V*>(sums) + block * (W + 1);
        memset(static_cast<void*>(recent), 0, W * sizeof(V));
        // Token t's gradient reaches x_{t-W+1} .. x_t, so x_s is complete once t = s + W - 1.
        int64_t slot = 0;
        for (int64_t t = 0; t < L + W - 1; ++t) {
            V g = {};
            if (t < L) {
                const V pre = convolve<T>(x, taps, bias, W, t, channel, count);
                const V s = sigmoid<T>(pre);
                g = load<T>(grad_y.row(t) + channel, count) * s * (T(1) + pre * (T(1) - s));
                for (int64_t k = t < W - 1 ? W - 1 - t : 0; k < W; ++k)
                    sum[k] += g * load<T>(x.row(t - W + 1 + k) + channel, count);
                sum[W] += g;
            }
            recent[slot] = g;
            slot = slot + 1 == W ? 0 : slot + 1;  // now the oldest token, t - W + 1
            if (t < W - 1) continue;
            V into_x = {};
            for (int64_t k = W - 1, from = slot; k >= 0; --k) {
                into_x += taps[k] * recent[from];
                from = from + 1 == W ? 0 : from + 1;
            }
            store<T>(grad_x.row(t - W + 1) + channel, into_x, count);
        }
    }
}

}  // namespace

int64_t conv_workspace(const ConvProblem& p) {
    const int64_t lanes = p.is_double ? Simd<double>::lanes : Simd<float>::lanes;
    const int64_t blocks = (p.channels + lanes - 1) / lanes;
    return lanes * (blocks + 1) * (p.width + 1) * 2;
}

void conv_forward(const ConvProblem& p, Segment segment, void* workspace) {
    p.is_double ? forward<double>(p, segment, workspace) : forward<float>(p, segment, workspace);
}

void conv_backward(const ConvProblem& p, Segment segment, void* sums, void* workspace) {
    p.is_double ? backward<double>(p, segment, sums, workspace)
                : backward<float>(p, segment, sums, workspace);
}

}  // namespace KERNEL_NAMESPACE
