// Vectors of float or double on GCC/Clang vector extensions, with exp, softplus and sigmoid.
//
// Each kernel file is compiled once per instruction set. Everything here has internal linkage and
// uses no header-only C++ library, so that no function compiled for a newer processor can be
// picked by the linker for an older one.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef VECTOR_BYTES
#define VECTOR_BYTES 16
#endif

namespace {

template <typename T> struct Simd;

template <> struct Simd<float> {
    typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef int32_t Integer __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int lanes = VECTOR_BYTES / sizeof(float);
    static constexpr int mantissa_bits = 23;
    // 1.5 * 2^23 rounds its addend to an integer; the exponent bias rides along.
    static constexpr float round_and_bias = 12582912.0f + 127.0f;
    static constexpr float lowest_power = -127.0f, highest_power = 128.0f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    // Minimax of 2^r on [-1/2, 1/2] with 2^0 = 1 exact (Lawson's iteration); error 1.6e-8.
    static constexpr int exp2_terms = 6;
    static constexpr float exp2_coefficients[6] = {
        0.6931472028551882f,   0.24022647913618264f,   0.05550332470832872f,
        0.00961843735808969f,  0.0013398874537727638f, 0.0001535336206003879f};
    static constexpr int atanh_terms = 8;
};

template <> struct Simd<double> {
    typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef int64_t Integer __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int lanes = VECTOR_BYTES / sizeof(double);
    static constexpr int mantissa_bits = 52;
    static constexpr double round_and_bias = 6755399441055744.0 + 1023.0;
    static constexpr double lowest_power = -1023.0, highest_power = 1024.0;
    static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
    // Taylor: ln(2)^k / k!; the first term left out is below 2e-17 on [-1/2, 1/2].
    static constexpr int exp2_terms = 13;
    static constexpr double exp2_coefficients[13] = {
        0x1.62e42fefa39efp-1, 0x1.ebfbdff82c58fp-3, 0x1.c6b08d704a0c0p-5,
        0x1.3b2ab6fba4e77p-7, 0x1.5d87fe78a6731p-10, 0x1.430912f86c787p-13,
        0x1.ffcbfc588b0c7p-17, 0x1.62c0223a5c824p-20, 0x1.b5253d395e7c4p-24,
        0x1.e4cf5158b8ecap-28, 0x1.e8cac7351bb25p-32, 0x1.c3bd650fc2986p-36,
        0x1.816193166d0f9p-40};
    static constexpr int atanh_terms = 17;
};


template <typename T> using Vec = typename Simd<T>::Vector;

template <typename T> inline Vec<T> splat(T value) { return value - Vec<T>{}; }

// Lanes past `count` are zero on load and untouched on store.
template <typename T> inline Vec<T> load(const T* from, int count) {
    Vec<T> v = {};
    if (count >= Simd<T>::lanes)
        memcpy(&v, from, sizeof v);
    else
        for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
}

template <typename T> inline void store(T* to, Vec<T> v, int count) {
    if (count >= Simd<T>::lanes)
        memcpy(to, &v, sizeof v);
    else
        for (int i = 0; i < count; ++i) to[i] = v[i];
}

template <typename T> inline T sum_lanes(Vec<T> v) {
    T parts[Simd<T>::lanes];
    memcpy(parts, &v, sizeof v);
    for (int width = Simd<T>::lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
    return parts[0];
}

template <typename T> inline Vec<T> horner(Vec<T> r) {
    Vec<T> p = splat<T>(Simd<T>::exp2_coefficients[Simd<T>::exp2_terms - 1]);
#pragma GCC unroll 16
    for (int k = Simd<T>::exp2_terms - 2; k >= 0; --k) p = p * r + Simd<T>::exp2_coefficients[k];
    return p * r + T(1);
}

// 2^x. Powers below the smallest normal number are 0, NaN stays NaN, powers from 127.5 are inf.
// `moderate` promises |x| < 2^20. The rounding trick is then exact before any clamp, and the clamp
// can be done on the rounded power's bits, where min and max are single instructions.
template <typename T, bool moderate> inline Vec<T> exp2_of(Vec<T> x) {
    using S = Simd<T>;
    using Integer = typename S::Integer;
    if constexpr (!moderate) {
        const Vec<T> low = splat<T>(S::lowest_power), high = splat<T>(S::highest_power);
        x = low > x ? low : x;  // this order keeps NaN
        x = high < x ? high : x;
    }
    const Vec<T> biased = x + S::round_and_bias;
    const Vec<T> r = x - (biased - S::round_and_bias);
    Integer power = (Integer)biased;
    if constexpr (moderate) {
        const Integer low = (Integer)splat<T>(S::lowest_power + S::round_and_bias);
        const Integer high = (Integer)splat<T>(S::highest_power + S::round_and_bias);
        power = power > low ? power : low;
        power = power < high ? power : high;
    }
    return horner<T>(r) * (Vec<T>)(power << S::mantissa_bits);
}

// e^x, within about 1 ulp also where |x| is large: the reduction is done in x, not in x log2(e).
template <typename T> inline Vec<T> exp_of(Vec<T> x) {
    using S = Simd<T>;
    const T log2e = T(1.4426950408889634), ln2 = T(0.6931471805599453);
    const Vec<T> low = splat<T>(S::lowest_power * ln2), high = splat<T>(S::highest_power * ln2);
    x = low > x ? low : x;
    x = high < x ? high : x;
    const Vec<T> biased = x * log2e + S::round_and_bias;
    const Vec<T> n = biased - S::round_and_bias;
    const Vec<T> r = (x - n * S::ln2_high) - n * S::ln2_low;
    const typename S::Integer scale = (typename S::Integer)biased << S::mantissa_bits;
    return horner<T>(r * log2e) * (Vec<T>)scale;
}

template <typename T> inline Vec<T> sigmoid(Vec<T> x) { return T(1) / (T(1) + exp_of<T>(-x)); }

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), log1p(y) = 2 atanh(y / (2 + y)) as a series: the
// argument is at most 1/3, so no table and no cancellation.
template <typename T> inline Vec<T> softplus(Vec<T> x) {
    const Vec<T> zero = {};
    const Vec<T> positive = zero > x ? zero : x;
    const Vec<T> magnitude = zero > x ? -x : x;
    const Vec<T> y = exp_of<T>(-magnitude);
    const Vec<T> s = y / (T(2) + y), s2 = s * s;
    Vec<T> p = splat<T>(T(1) / T(2 * Simd<T>::atanh_terms - 1));
#pragma GCC unroll 20
    for (int k = Simd<T>::atanh_terms - 2; k >= 0; --k) p = p * s2 + T(1) / T(2 * k + 1);
    return positive + T(2) * s * p;
}

}  // namespace
