// Residual sum and RMS norm in one pass over each row, forward and backward; per instruction set.
//
// With s = x + residual and r = 1 / rms(s):  y = s r w
//   ds = r (dy w - s r^2 mean(dy w s)) + (gradient that reaches s elsewhere),  dw += dy s r
#include "kernels.h"
#include "vector_math.h"

namespace KERNEL_NAMESPACE {
namespace {

template <typename T> T* row(void* data, int64_t index, int64_t width) {
    return static_cast<T*>(data) + index * width;
}

int lanes_left(int64_t left, int lanes) { return left < lanes ? static_cast<int>(left) : lanes; }

// x and y are stored as S.
template <typename T, typename S> void forward(const NormProblem& p, Range rows) {
    constexpr int lanes = Simd<T>::lanes;
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t i = rows.first; i < rows.end; ++i) {
        const S* x = row<S>(p.x, i, p.width);
        const T* residual = row<T>(p.residual, i, p.width);
        T* sum = row<T>(p.sum, i, p.width);
        S* y = row<S>(p.y, i, p.width);
        Vec<T> squares = {};
        for (int64_t c = 0; c < p.width; c += lanes) {
            const int count = lanes_left(p.width - c, lanes);
            const Vec<T> s = load<T>(x + c, count) + load<T>(residual + c, count);
            store<T>(sum + c, s, count);
            squares += s * s;
        }
        const double mean = static_cast<double>(sum_lanes<T>(squares)) / p.width;
        const T inverse = static_cast<T>(1 / __builtin_sqrt(mean + p.eps));
        static_cast<T*>(p.inverse)[i] = inverse;
        for (int64_t c = 0; c < p.width; c += lanes) {
            const int count = lanes_left(p.width - c, lanes);
            store<T>(y + c, load<T>(sum + c, count) * inverse * load<T>(weight + c, count), count);
        }
    }
}

// `grad_weight` is that of the part, zeroed by the caller.
template <typename T> void backward(const NormProblem& p, Range rows, T* grad_weight) {
    constexpr int lanes = Simd<T>::lanes;
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t i = rows.first; i < rows.end; ++i) {
        const T *sum = row<T>(p.sum, i, p.width), *grad_y = row<T>(p.grad_y, i, p.width);
        const T* grad_sum = p.grad_sum ? row<T>(p.grad_sum, i, p.width) : nullptr;
        T* grad_x = row<T>(p.grad_x, i, p.width);
        const T inverse = static_cast<const T*>(p.inverse)[i];
        Vec<T> products = {};
        for (int64_t c = 0; c < p.width; c += lanes) {
            const int count = lanes_left(p.width - c, lanes);
            const Vec<T> s = load<T>(sum + c, count), g = load<T>(grad_y + c, count);
            products += g * load<T>(weight + c, count) * s;
            store<T>(grad_weight + c, load<T>(grad_weight + c, count) + g * s * inverse, count);
        }
        const T shared = sum_lanes<T>(products) / p.width * inverse * inverse;
        for (int64_t c = 0; c < p.width; c += lanes) {
            const int count = lanes_left(p.width - c, lanes);
            const Vec<T> g = load<T>(grad_y + c, count) * load<T>(weight + c, count);
            Vec<T> to_sum = (g - load<T>(sum + c, count) * shared) * inverse;
            if (grad_sum) to_sum += load<T>(grad_sum + c, count);
            store<T>(grad_x + c, to_sum, count);
        }
    }
}

}  // namespace

void norm_forward(const NormProblem& p, Range rows) {
    if (p.is_double)
        forward<double, double>(p, rows);
    else
        p.is_bf16 ? forward<float, BFloat16>(p, rows) : forward<float, float>(p, rows);
}

void norm_backward(const NormProblem& p, Range rows, void* grad_weight) {
    p.is_double ? backward<double>(p, rows, static_cast<double*>(grad_weight))
                : backward<float>(p, rows, static_cast<float*>(grad_weight));
}

}  // namespace KERNEL_NAMESPACE
