// Vectors of float or double on GCC/Clang vector extensions, with exp, softplus and sigmoid; rows of
// bfloat16 are widened to float as they are read and rounded as they are written.
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
    typedef float Unaligned
        __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef int32_t Integer __attribute__((vector_size(VECTOR_BYTES)));
    typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    typedef uint16_t Upper __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef uint16_t UnalignedUpper
        __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));
    static constexpr int lanes = VECTOR_BYTES / sizeof(float);
    static constexpr int mantissa_bits = 23;
    // 1.5 * 2^23 rounds its addend to an integer; the exponent bias rides along.
    static constexpr float round_to_integer = 12582912.0f;
    static constexpr float round_and_bias = 12582912.0f + 127.0f;
    static constexpr float normal_powers = 125.0f;  // 2^x is normal for |x| below this
    static constexpr float lowest_power = -127.0f, highest_power = 128.0f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    // Minimax of 2^r on [-1/2, 1/2] with 2^0 = 1 exact (Lawson's iteration); error 9.1e-8.
    static constexpr int exp2_terms = 5;
    static constexpr float exp2_coefficients[5] = {
        0.6931469775976781f, 0.24022242083110568f, 0.05550733744471528f, 0.00967151278585817f,
        0.0013264727252734823f};
    // Minimax of atanh(s) / s in s^2 on [0, 1/9]; error 4.0e-9.
    static constexpr int atanh_terms = 5;
    static constexpr float atanh_coefficients[5] = {
        1.0f, 0.3333315734202326f, 0.2001245512017615f, 0.13980301478266186f,
        0.14089167643493755f};
    static constexpr float largest_exponent = 87.0f;  // e^x is normal for |x| up to this
};

template <> struct Simd<double> {
    typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
    typedef double Unaligned
        __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    typedef int64_t Integer __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int lanes = VECTOR_BYTES / sizeof(double);
    static constexpr int mantissa_bits = 52;
    static constexpr double round_to_integer = 6755399441055744.0;
    static constexpr double round_and_bias = 6755399441055744.0 + 1023.0;
    static constexpr double normal_powers = 1021.0;
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
    // Taylor of atanh(s) / s: 1 / (2 k + 1).
    static constexpr int atanh_terms = 17;
    static constexpr double atanh_coefficients[17] = {
        1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17,
        1.0 / 19, 1.0 / 21, 1.0 / 23, 1.0 / 25, 1.0 / 27, 1.0 / 29, 1.0 / 31, 1.0 / 33};
    static constexpr double largest_exponent = 708.0;
};


template <typename T> using Vec = typename Simd<T>::Vector;

template <typename T> inline Vec<T> splat(T value) { return value - Vec<T>{}; }

// Lanes past `count` are zero on load and untouched on store.
template <typename T> inline Vec<T> load(const T* from, int count) {
    if (__builtin_expect(count >= Simd<T>::lanes, 1))
        return *reinterpret_cast<const typename Simd<T>::Unaligned*>(from);
    Vec<T> v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
}

template <typename T> inline void store(T* to, Vec<T> v, int count) {
    if (__builtin_expect(count >= Simd<T>::lanes, 1))
        *reinterpret_cast<typename Simd<T>::Unaligned*>(to) = v;
    else
        for (int i = 0; i < count; ++i) to[i] = v[i];
}

// A bfloat16 as it lies in memory: the upper half of a float.
struct BFloat16 {
    uint16_t bits;
};

inline Vec<float> widened(Simd<float>::Upper upper) {
    return (Vec<float>)(__builtin_convertvector(upper, Simd<float>::Bits) << 16);
}

// To the nearest bfloat16, ties to even; NaN stays NaN.
inline Simd<float>::Upper rounded(Vec<float> v) {
    using Bits = Simd<float>::Bits;
    const Bits bits = (Bits)v;
    const Bits nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
    const Bits nan = Bits{} + 0x7fc00000u;
    return __builtin_convertvector((v == v ? nearest : nan) >> 16, Simd<float>::Upper);
}

template <typename T> inline Vec<T> load(const BFloat16* from, int count) {
    if (__builtin_expect(count >= Simd<T>::lanes, 1))
        return widened(*reinterpret_cast<const Simd<float>::UnalignedUpper*>(from));
    Simd<float>::Upper upper = {};
    for (int i = 0; i < count; ++i) upper[i] = from[i].bits;
    return widened(upper);
}

template <typename T> inline void store(BFloat16* to, Vec<T> v, int count) {
    const Simd<float>::Upper upper = rounded(v);
    if (__builtin_expect(count >= Simd<T>::lanes, 1))
        *reinterpret_cast<Simd<float>::UnalignedUpper*>(to) = upper;
    else
        for (int i = 0; i < count; ++i) to[i].bits = upper[i];
}

template <typename T> inline T sum_lanes(Vec<T> v) {
    T parts[Simd<T>::lanes];
    memcpy(parts, &v, sizeof v);
    for (int width = Simd<T>::lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
    return parts[0];
}

// 2^r on [-1/2, 1/2]: pairs of terms side by side, then Horner in r^2. The chain of dependent
// operations, not their number, is what binds an exp.
template <typename T> inline Vec<T> exp2_fraction(Vec<T> r) {
    constexpr int degree = Simd<T>::exp2_terms;
    const auto coefficient = [](int k) { return k ? Simd<T>::exp2_coefficients[k - 1] : T(1); };
    const Vec<T> square = r * r;
    constexpr int top = degree / 2 * 2;  // the pair of r^top and, for an odd degree, r^(top + 1)
    Vec<T> sum = degree % 2 ? r * coefficient(degree) + coefficient(top) : splat<T>(coefficient(top));
#pragma GCC unroll 16
    for (int k = top - 2; k >= 0; k -= 2)
        sum = sum * square + (r * coefficient(k + 1) + coefficient(k));
    return sum;
}

// 2^x. Powers below the smallest normal number are 0, NaN stays NaN, powers from 127.5 are inf.
// `normal` promises that x is finite and 2^x a normal number: then the power may be added to the
// exponent's bits, with no clamp and no multiplication.
template <typename T, bool normal> inline Vec<T> exp2_of(Vec<T> x) {
    using S = Simd<T>;
    using Integer = typename S::Integer;
    if constexpr (normal) {
        const Vec<T> shifted = x + S::round_to_integer;
        const Vec<T> r = x - (shifted - S::round_to_integer);
        return (Vec<T>)((Integer)exp2_fraction<T>(r) + ((Integer)shifted << S::mantissa_bits));
    }
    const Vec<T> low = splat<T>(S::lowest_power), high = splat<T>(S::highest_power);
    x = low > x ? low : x;  // this order keeps NaN
    x = high < x ? high : x;
    const Vec<T> biased = x + S::round_and_bias;
    const Vec<T> r = x - (biased - S::round_and_bias);
    return exp2_fraction<T>(r) * (Vec<T>)((Integer)biased << S::mantissa_bits);
}

// x with its magnitude held to where e^x is normal; NaN becomes a number. On the bits, where min is
// one instruction.
template <typename T> inline Vec<T> held(Vec<T> x) {
    using Integer = typename Simd<T>::Integer;
    const Integer sign_bit = (Integer)splat<T>(T(-0.0));
    const Integer magnitude = (Integer)x & ~sign_bit;
    const Integer most = (Integer)splat<T>(Simd<T>::largest_exponent);
    return (Vec<T>)((magnitude < most ? magnitude : most) | ((Integer)x & sign_bit));
}

// e^x for |x| up to largest_exponent, within about 1 ulp also where |x| is large: the reduction is
// done in x, not in x log2(e).
template <typename T> inline Vec<T> exp_of(Vec<T> x) {
    using S = Simd<T>;
    using Integer = typename S::Integer;
    const T log2e = T(1.4426950408889634);
    const Vec<T> shifted = x * log2e + S::round_to_integer;
    const Vec<T> n = shifted - S::round_to_integer;
    const Vec<T> r = (x - n * S::ln2_high) - n * S::ln2_low;
    return (Vec<T>)((Integer)exp2_fraction<T>(r * log2e) + ((Integer)shifted << S::mantissa_bits));
}

// 1 / (1 + e^-x). A NaN gives a number: callers multiply it by what made the NaN.
template <typename T> inline Vec<T> sigmoid(Vec<T> x) {
    return T(1) / (T(1) + exp_of<T>(held<T>(-x)));
}

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), log1p(y) = 2 atanh(s), s = y / (2 + y), as a series in
// s: it is at most 1/3, so no table and no cancellation.
template <typename T> inline Vec<T> softplus(Vec<T> x) {
    using S = Simd<T>;
    using Integer = typename S::Integer;
    const Vec<T> zero = {};
    const Vec<T> positive = zero > x ? zero : x;  // this order keeps NaN
    const Vec<T> y = exp_of<T>(held<T>((Vec<T>)((Integer)x | (Integer)splat<T>(T(-0.0)))));
    const Vec<T> s = y / (T(2) + y), square = s * s;
    Vec<T> sum = splat<T>(S::atanh_coefficients[S::atanh_terms - 1]);
#pragma GCC unroll 20
    for (int k = S::atanh_terms - 2; k >= 0; --k) sum = sum * square + S::atanh_coefficients[k];
    return positive + (s + s) * sum;
}

}  // namespace
