/*
 * Every header of C and C++ in one file: as much of them as the miniature, the shard's own sources and CUDA's headers
 * use. install.py makes <stdio.h>, <cmath> and the others, which all include this file. Written for the tests from the
 * published interfaces; nothing in here is from Microsoft's files.
 */
#pragma once

#define _CRTIMP
#define _ACRTIMP
#define _VCRTIMP
#define __CRTDECL __cdecl
#define _CRT_STDIO_INLINE inline
#define NULL 0
#define offsetof(type, member) __builtin_offsetof(type, member)
#define assert(condition) ((void) 0)

#define CHAR_BIT 8
#define INT_MAX 2147483647
#define UINT_MAX 4294967295U
#define LONG_MAX 2147483647L

typedef signed char        int8_t;
typedef short              int16_t;
typedef int                int32_t;
typedef long long          int64_t;
typedef unsigned char      uint8_t;
typedef unsigned short     uint16_t;
typedef unsigned int       uint32_t;
typedef unsigned long long uint64_t;
typedef unsigned long long size_t;
typedef long long          ptrdiff_t;
typedef long long          intptr_t;
typedef unsigned long long uintptr_t;
typedef long long          time_t;
typedef long               clock_t;
typedef unsigned short     wint_t;
typedef char *             va_list;

#ifdef __cplusplus
extern "C" {
#endif

typedef struct FILE FILE;
FILE * __cdecl __acrt_iob_func(unsigned);
#define stderr __acrt_iob_func(2)
int __cdecl printf(const char *, ...);
int __cdecl fprintf(FILE *, const char *, ...);
void * __cdecl malloc(size_t);
void * __cdecl realloc(void *, size_t);
void __cdecl free(void *);
void __cdecl abort(void);
void __cdecl exit(int);
int __cdecl abs(int);
long __cdecl labs(long);
__int64 __cdecl llabs(__int64);
clock_t __cdecl clock(void);
void * __cdecl memcpy(void *, const void *, size_t);
void * __cdecl memset(void *, int, size_t);
int __cdecl strcmp(const char *, const char *);
size_t __cdecl strlen(const char *);
unsigned short __cdecl _byteswap_ushort(unsigned short);
unsigned long __cdecl _byteswap_ulong(unsigned long);
unsigned __int64 __cdecl _byteswap_uint64(unsigned __int64);

/* For double, and with an f after the name for float. */
#define ONE(name) double __cdecl name(double); float __cdecl name##f(float);
#define TWO(name) double __cdecl name(double, double); float __cdecl name##f(float, float);
#define ANY(result, name, ...) result __cdecl name(__VA_ARGS__);
ONE(acos) ONE(acosh) ONE(asin) ONE(asinh) ONE(atan) ONE(atanh) ONE(cbrt) ONE(ceil) ONE(cos) ONE(cosh) ONE(erf) ONE(erfc)
ONE(exp) ONE(exp2) ONE(expm1) ONE(fabs) ONE(floor) ONE(lgamma) ONE(log) ONE(log10) ONE(log1p) ONE(log2) ONE(logb)
ONE(nearbyint) ONE(rint) ONE(round) ONE(sin) ONE(sinh) ONE(sqrt) ONE(tan) ONE(tanh) ONE(tgamma) ONE(trunc)
TWO(_copysign) TWO(atan2) TWO(copysign) TWO(fdim) TWO(fmax) TWO(fmin) TWO(fmod) TWO(nextafter) TWO(pow) TWO(remainder)
ANY(double, hypot, double, double) TWO(_hypot)
ANY(double, fma, double, double, double) ANY(float, fmaf, float, float, float)
ANY(double, frexp, double, int *) ANY(float, frexpf, float, int *)
ANY(double, ldexp, double, int) ANY(float, ldexpf, float, int)
ANY(double, modf, double, double *) ANY(float, modff, float, float *)
ANY(double, nan, const char *) ANY(float, nanf, const char *)
ANY(double, remquo, double, double, int *) ANY(float, remquof, float, float, int *)
ANY(double, scalbn, double, int) ANY(float, scalbnf, float, int)
ANY(double, scalbln, double, long) ANY(float, scalblnf, float, long)
ANY(int, ilogb, double) ANY(int, ilogbf, float)
ANY(long, lrint, double) ANY(long, lrintf, float) ANY(long, lround, double) ANY(long, lroundf, float)
ANY(long long, llrint, double) ANY(long long, llrintf, float) ANY(long long, llround, double) ANY(long long, llroundf, float)
ANY(double, _j0, double) ANY(double, _j1, double) ANY(double, _jn, int, double)
ANY(double, _y0, double) ANY(double, _y1, double) ANY(double, _yn, int, double)
ANY(short, _dclass, double) ANY(short, _fdclass, float) ANY(short, _ldclass, long double)
int __cdecl _dsign(double);
int __cdecl _fdsign(float);
int __cdecl _ldsign(long double);
#undef ONE
#undef TWO
#undef ANY

#ifdef __cplusplus
}

void * __cdecl operator new(size_t, void *) noexcept;
template <class T> bool isfinite(T);
template <class T> bool isinf(T);
template <class T> bool isnan(T);
template <class T> bool signbit(T);

namespace std {

using ::fprintf;
using ::printf;
using ::va_list;
struct nothrow_t {};
extern const nothrow_t nothrow;
enum class align_val_t : size_t {};

template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <class T> struct remove_reference { typedef T type; };
template <class T> struct remove_reference<T &> { typedef T type; };
template <class T> struct remove_reference<T &&> { typedef T type; };
template <class T> constexpr T && forward(typename remove_reference<T>::type & t) noexcept { return static_cast<T &&>(t); }
template <class T> constexpr typename remove_reference<T>::type && move(T && t) noexcept {
    return static_cast<typename remove_reference<T>::type &&>(t);
}

template <class T> struct arithmetic { static constexpr bool value = false; };
template <> struct arithmetic<int> { static constexpr bool value = true; };
template <> struct arithmetic<float> { static constexpr bool value = true; };
template <> struct arithmetic<double> { static constexpr bool value = true; };
template <class T> inline constexpr bool is_arithmetic_v = arithmetic<T>::value;
template <class A, class B> struct common_float { typedef double type; };
template <> struct common_float<float, float> { typedef float type; };
template <class A, class B> using _Common_float_type_t = typename common_float<A, B>::type;
using ::isfinite;
using ::isinf;
using ::isnan;
using ::signbit;

template <class T> constexpr const T & max(const T & a, const T & b) { return a < b ? b : a; }
template <class T> constexpr const T & min(const T & a, const T & b) { return b < a ? b : a; }

/* As Visual C++'s, it calls msvcp140.dll if there is no memory. */
[[noreturn]] __declspec(dllimport) void __cdecl _Xbad_alloc();

template <class T> class vector {
    T *    first = nullptr;
    size_t count = 0;

  public:
    vector() {}
    vector(const T * from, const T * to) {
        for (; from != to; from++) {
            push_back(*from);
        }
    }
    vector(const vector &) = delete;
    vector(vector && other) : first(other.first), count(other.count) { other.first = nullptr; }
    ~vector() { ::free(first); }
    void push_back(const T & value) {
        first = static_cast<T *>(::realloc(first, (count + 1) * sizeof(T)));
        if (first == nullptr) {
            _Xbad_alloc();
        }
        first[count++] = value;
    }
    T *       begin() { return first; }
    T *       end() { return first + count; }
    T *       data() { return first; }
    bool      empty() const { return count == 0; }
    size_t    size() const { return count; }
    const T & operator[](size_t at) const { return first[at]; }
};

}  // namespace std
#endif
