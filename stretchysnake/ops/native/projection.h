// The product of a few rows, still in the cache, with a narrow weight; compiled per instruction set.
//
// Symbols: D inputs a row, P outputs a row, V lanes of a vector. A panel is kPanel vectors of outputs.
#pragma once

#include "kernels.h"
#include "vector_math.h"

namespace {

constexpr int kRows = 4;               // rows together: kRows * kPanel sums stay in registers
constexpr int64_t kInputsAtATime = 192;  // a panel's weights of so many inputs stay in the first cache

template <typename T> int64_t panel_width() { return kPanel * Simd<T>::lanes; }

// Adds inputs [first, end) of `count` rows to their outputs of one panel; `packed` as dispatch.cpp
// lays it out: (panel, input, output).
template <typename T, int count>
inline void project_panel(const T* const* rows, const T* packed, int64_t first, int64_t end,
                          Vec<T> sums[count][kPanel]) {
    constexpr int lanes = Simd<T>::lanes;
    for (int64_t d = first; d < end; ++d) {
        Vec<T> weight[kPanel];
#pragma GCC unroll 4
        for (int j = 0; j < kPanel; ++j)
            weight[j] = *reinterpret_cast<const Vec<T>*>(packed + (d * kPanel + j) * lanes);
#pragma GCC unroll 4
        for (int i = 0; i < count; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < kPanel; ++j) sums[i][j] += rows[i][d] * weight[j];
    }
}

template <typename T, int count>
inline void project_group(const T* const* rows, T* const* out, const T* packed, int64_t first,
                          int64_t end, int64_t output, int64_t P) {
    constexpr int lanes = Simd<T>::lanes;
    Vec<T> sums[count][kPanel];
    const auto width = [&](int j) {
        const int64_t left = P - output - j * lanes;
        return left >= lanes ? lanes : left > 0 ? static_cast<int>(left) : 0;
    };
    for (int i = 0; i < count; ++i)
        for (int j = 0; j < kPanel; ++j)
            sums[i][j] = first && width(j) ? load<T>(out[i] + output + j * lanes, width(j)) : Vec<T>{};
    project_panel<T, count>(rows, packed, first, end, sums);
    for (int i = 0; i < count; ++i)
        for (int j = 0; j < kPanel; ++j)
            if (width(j)) store<T>(out[i] + output + j * lanes, sums[i][j], width(j));
}

// out[i] (P) = weight rows[i] (D) for `count` rows.
template <typename T>
void project(const T* const* rows, T* const* out, int count, const T* packed, int64_t D, int64_t P) {
    for (int64_t first = 0; first < D; first += kInputsAtATime) {
        const int64_t end = first + kInputsAtATime < D ? first + kInputsAtATime : D;
        for (int64_t output = 0; output < P; output += panel_width<T>()) {
            const T* panel = packed + output * D;
            int i = 0;
            for (; i + kRows <= count; i += kRows)
                project_group<T, kRows>(rows + i, out + i, panel, first, end, output, P);
            for (; i < count; ++i)
                project_group<T, 1>(rows + i, out + i, panel, first, end, output, P);
        }
    }
}

}  // namespace
