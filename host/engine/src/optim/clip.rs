//! Clipping by the global norm, as `torch.nn.utils.clip_grad_norm_`.

/// Factor that brings gradients of norm `grad_norm` to `max_grad_norm` at most.
///
/// torch adds 1e-6 to the norm before dividing and never scales up.
pub fn clip_scale(grad_norm: f64, max_grad_norm: f64) -> f64 {
    (max_grad_norm / (grad_norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gradients_are_left_alone_and_large_ones_end_at_the_bound() {
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert!((clip_scale(4.0, 1.0) * 4.0 - 1.0).abs() < 1e-6);
    }
}
