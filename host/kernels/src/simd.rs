//! Loops that the compiler vectorises for the machine they run on.
//!
//! A function in [`vectorized!`] is compiled once for each instruction set, and one is picked at run time. What it calls
//! must be `#[inline(always)]` and small closures, otherwise it is compiled for the lowest common set, where `mul_add` is
//! a call. Sums are kept in [`LANES`] partial sums, in a fixed order: a result does not depend on the number of threads.
//!
//! `unsafe` here: the instruction that asks for memory ahead of its use. It reads nothing and cannot fail.

use pulp::Simd;

/// Partial sums of a reduction: two registers of AVX2, so that two additions are under way at a time.
pub(crate) const LANES: usize = 16;

/// Defines functions that run with the widest instructions there are.
///
/// Arguments become fields of a value that `pulp` takes: a closure would do, were it sure to be inlined.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) $(-> $output)? {
            struct Call<A>(A);

            impl pulp::WithSimd for Call<($($type,)*)> {
                type Output = $crate::simd::vectorized!(@output $($output)?);

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Call(($($argument,)*)) = self;
                    $body
                }
            }

            pulp::Arch::new().dispatch(Call(($($argument,)*)))
        }
    )*};
    (@output) => { () };
    (@output $output:ty) => { $output };
}
pub(crate) use vectorized;

/// `e^x` within 2 units in the last place for `x` in [-87, 88]; 0 (nearly) below, infinite (nearly) above, NaN for NaN.
///
/// Argument reduction and polynomial as in Cephes' `expf`, without a branch.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: added to a small number, its fraction is rounded away and its integer stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Written so that NaN stays NaN; `max` would drop it.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // The integer of `rounded` goes to the exponent; the constant's own bits are shifted out.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    y * power
}

/// `tanh x` within 2e-7, and within 3 units in the last place where `|x|` is below 0.625; NaN for NaN.
///
/// The polynomial around 0 is that of Cephes' `tanhf`: `1 - 2 / (e^2x + 1)` cancels there. Both are computed of every
/// value, since a branch would keep a loop from being vectorised.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_988_7e-3_f32;
    p = p.mul_add(square, 2.063_909e-2);
    p = p.mul_add(square, -5.373_971_6e-2);
    p = p.mul_add(square, 1.333_144_2e-1);
    p = p.mul_add(square, -3.333_328e-1);
    let near = (p * square).mul_add(x, x);
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Sum over what stands at each place of `slices`, which are as long as the first.
///
/// Whole chunks are taken from them: an index into a slice would be checked in the loop, which keeps it from vectors.
#[inline(always)]
pub(crate) fn sum<const N: usize>(slices: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let (length, mut lanes) = (slices[0].len(), [0.0f32; LANES]);
    let slices = slices.map(|it| it[..length].as_chunks::<LANES>());
    let chunks = slices.map(|it| &it.0[..length / LANES]);
    for at in 0..length / LANES {
        let chunks = chunks.map(|it| &it[at]);
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(chunks.map(|it| it[lane]));
        }
    }
    let rest: f32 = (0..length % LANES).map(|at| term(slices.map(|it| it.1[at]))).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Sum of products; both of one length. The partial sums are added in pairs: where rows are short, their end counts.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, rest_a) = a.as_chunks::<LANES>();
    let (b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    let eight: [f32; 8] = std::array::from_fn(|it| lanes[it] + lanes[it + 8]);
    let four: [f32; 4] = std::array::from_fn(|it| eight[it] + eight[it + 4]);
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    (four[0] + four[2]) + (four[1] + four[3]) + rest
}

/// Sum of products, both of one length, in `SUMS` sums, a power of two: as many as hide the time that an addition takes.
///
/// Written with the machine's vectors, where the compiler does not find them: among sums of two dimensions.
#[inline(always)]
pub(crate) fn vector_dot<S: Simd, const SUMS: usize>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let ((a, a_last), (b, b_last)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    for (a, b) in a.iter().zip(b) {
        for it in 0..SUMS {
            sums[it] = simd.mul_add_f32s(a[it], b[it], sums[it]);
        }
    }
    for (a, b) in a_last.iter().zip(b_last) {
        sums[0] = simd.mul_add_f32s(*a, *b, sums[0]);
    }
    let mut count = SUMS;
    while count > 1 {
        count /= 2;
        for it in 0..count {
            sums[it] = simd.add_f32s(sums[it], sums[it + count]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f32s(sums[0]) + rest
}

/// Values of a cache line.
pub(crate) const LINE: usize = 16;

/// Asks for the cache line that holds the value `ahead` of the first of `values`.
#[inline(always)]
pub(crate) fn expect(values: &[f32], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let place = values.as_ptr().wrapping_add(ahead).cast::<i8>();
        // SAFETY: any address will do, and every x86-64 processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, ahead);
}

/// The largest element; NaN where one is NaN, negative infinity where there is none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    // A comparison with NaN is false either way round: the lane keeps it, or takes it.
    let larger = |a: f32, b: f32| if a >= b || a.is_nan() { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| larger(a, *b))
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorized! {
        fn wide_exp(x: f32) -> f32 {
            exp(x)
        }

        fn wide_tanh(x: f32) -> f32 {
            tanh(x)
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for step in 0..200_000 {
            let x = -87.0 + step as f32 * (175.0 / 200_000.0);
            let (got, expected) = (f64::from(wide_exp(x)), f64::from(x).exp());
            let ulp = f64::from(f32::EPSILON) * expected;
            worst = worst.max((got - expected).abs() / ulp);
        }
        assert!(worst < 2.0, "{worst} units");
        assert!(exp(-1e4) < 2e-38 && exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn tanh_is_within_two_units_of_one_and_three_in_the_last_place_near_zero() {
        let (mut absolute, mut near) = (0.0f64, 0.0f64);
        for step in 0..400_001 {
            let x = (step - 200_000) as f32 * 1e-4;
            let (got, expected) = (f64::from(wide_tanh(x)), f64::from(x).tanh());
            absolute = absolute.max((got - expected).abs());
            if x.abs() < 0.625 && x != 0.0 {
                near = near.max((got - expected).abs() / (f64::from(f32::EPSILON) * expected.abs()));
            }
        }
        assert!(absolute < 2e-7, "{absolute:e}");
        assert!(near < 3.0, "{near} units");
        assert_eq!([0.0, 100.0, -1e30, f32::NEG_INFINITY].map(tanh), [0.0, 1.0, -1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_see_every_element() {
        for length in [0usize, 1, 15, 16, 17, 48, 50] {
            let values: Vec<f32> = (0..length).map(|it| it as f32 - 3.0).collect();
            let expected: f32 = values.iter().sum();
            assert_eq!(sum([&values[..length]], |[it]| it), expected);
            assert_eq!(dot(&values, &values), values.iter().map(|it| it * it).sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn a_maximum_with_a_nan_is_nan() {
        for place in 0..20 {
            let mut values = [1.0f32; 20];
            values[place] = f32::NAN;
            assert!(max(&values).is_nan(), "{place}");
        }
    }
}
