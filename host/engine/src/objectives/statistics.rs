//! Means, variances and whitening of plain numbers; sums are taken in f64.

/// Mean; 0 of nothing.
pub fn mean(values: &[f32]) -> f64 {
    values.iter().map(|it| f64::from(*it)).sum::<f64>() / values.len().max(1) as f64
}

/// Variance with Bessel's correction, as `torch.var`; 0 of fewer than two values, where torch has NaN.
pub fn variance(values: &[f32]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|it| (f64::from(*it) - mean).powi(2)).sum();
    if values.len() < 2 { 0.0 } else { squares / (values.len() - 1) as f64 }
}

/// Zero mean and unit variance, the mean put back where `shift_mean` is false: TRL's `masked_whiten`.
///
/// The variance is Bessel's, and 1e-8 is added to it. Of fewer than two values, where TRL divides by zero, the deviation is 0.
pub fn whiten(values: &[f32], shift_mean: bool) -> Vec<f32> {
    masked_whiten(values, &vec![true; values.len()], shift_mean)
}

/// [`whiten`] of the values where `mask` is true; the others count for nothing and become 0.
pub fn masked_whiten(values: &[f32], mask: &[bool], shift_mean: bool) -> Vec<f32> {
    let kept: Vec<f32> = values.iter().zip(mask).filter(|it| *it.1).map(|it| *it.0).collect();
    let (mean, scale) = (mean(&kept), (variance(&kept) + 1e-8).sqrt().recip());
    let shift = if shift_mean { 0.0 } else { mean };
    let whitened = |it: f32| ((f64::from(it) - mean) * scale + shift) as f32;
    values.iter().zip(mask).map(|(it, kept)| if *kept { whitened(*it) } else { 0.0 }).collect()
}

/// `1 - var(returns - values) / var(returns)`: 1 is a value model that knows the returns, 0 one that knows their mean.
///
/// Not in TRL; as in OpenAI's baselines. `None` where the returns do not vary.
pub fn explained_variance(values: &[f32], returns: &[f32]) -> Option<f64> {
    let errors: Vec<f32> = returns.iter().zip(values).map(|(a, b)| a - b).collect();
    let total = variance(returns);
    (total > 0.0).then(|| 1.0 - variance(&errors) / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} is not {expected:?}");
    }

    /// By hand: mean 2, variance 1 with Bessel's correction.
    #[test]
    fn whitening_leaves_unit_variance_and_may_keep_the_mean() {
        close(&whiten(&[1.0, 2.0, 3.0], true), &[-1.0, 0.0, 1.0]);
        close(&whiten(&[1.0, 2.0, 3.0], false), &[1.0, 2.0, 3.0]);
        close(
            &masked_whiten(&[1.0, 9.0, 2.0, 3.0], &[true, false, true, true], true),
            &[-1.0, 0.0, 0.0, 1.0],
        );
        close(&masked_whiten(&[1.0, 9.0, 3.0], &[true, false, false], true), &[0.0, 0.0, 0.0]);
        close(&whiten(&[], true), &[]);
    }

    /// By hand: returns vary by 1, errors by 0.25.
    #[test]
    fn explained_variance_is_one_for_a_model_that_knows() {
        let returns = [1.0, 2.0, 3.0];
        assert_eq!(explained_variance(&returns, &returns), Some(1.0));
        assert_eq!(explained_variance(&[5.0, 5.0, 5.0], &returns), Some(0.0));
        assert_eq!(explained_variance(&[0.5, 1.0, 1.5], &returns), Some(0.75));
        assert_eq!(explained_variance(&[1.0, 2.0], &[3.0, 3.0]), None);
    }
}
