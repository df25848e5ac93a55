//! Completions end to end: values `[T]` and the length of each of `N` completions. No padding, as everywhere in the engine.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, TensorData};

/// Where each completion lies.
pub fn ranges(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    lengths.iter().scan(0, |end, length| {
        let start = *end;
        *end += length;
        Some(start..*end)
    })
}

/// The values of each completion.
pub fn parts<'a>(values: &'a [f32], lengths: &'a [usize]) -> impl Iterator<Item = &'a [f32]> {
    ranges(lengths).map(move |range| &values[range])
}

/// Each completion's own value at each of its tokens.
pub fn spread(of_completions: &[f32], lengths: &[usize]) -> Vec<f32> {
    let each = of_completions.iter().zip(lengths);
    each.flat_map(|(value, length)| std::iter::repeat_n(*value, *length)).collect()
}

/// Sum of each completion's values; 0 where it has none.
///
/// # Shapes
/// - `values`: `[T]`; result: `[N]`
pub fn sums(values: Tensor<1>, lengths: &[usize]) -> Tensor<1> {
    let ranges: Vec<Range<usize>> = ranges(lengths).collect();
    sums_of(values, &ranges)
}

/// Sum of the first `kept[i]` values of each completion.
///
/// # Shapes
/// - `values`: `[T]`; result: `[N]`
pub fn sums_of_heads(values: Tensor<1>, lengths: &[usize], kept: &[usize]) -> Tensor<1> {
    let heads = ranges(lengths).zip(kept).map(|(range, kept)| range.start..range.end.min(range.start + kept));
    sums_of(values, &heads.collect::<Vec<_>>())
}

/// Rows are laid side by side and summed along them: on every device in the same order, unlike adding to places.
fn sums_of(values: Tensor<1>, ranges: &[Range<usize>]) -> Tensor<1> {
    let (count, width) = (ranges.len(), ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(0));
    let device = values.device().inner();
    if width == 0 {
        return Tensor::zeros([count], &device);
    }
    let place =
        |range: &Range<usize>, it: usize| if it < range.len() { (range.start + it) as i64 } else { 0 };
    let places: Vec<i64> =
        ranges.iter().flat_map(|range| (0..width).map(move |it| place(range, it))).collect();
    let outside: Vec<bool> =
        ranges.iter().flat_map(|range| (0..width).map(move |it| it >= range.len())).collect();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count * width]), &device);
    let outside = Tensor::<2, Bool>::from_data(TensorData::new(outside, [count, width]), &device);
    let rows = values.select(0, places).reshape([count, width]);
    rows.mask_fill(outside, 0.0).sum_dim(1).reshape([count])
}

/// Numbers of the host as a constant beside `like`.
pub(crate) fn constant(values: &[f32], like: &Tensor<1>) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &like.device().inner())
}

/// Values of a tensor, without its graph, as numbers of the host.
pub(crate) fn floats(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.clone().inner().try_into_vec_as().expect("a float tensor is read as f32")
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn sequence(values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &Device::flex())
    }

    #[test]
    fn sums_are_those_of_each_completion() {
        let values = sequence(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let of = |it: Tensor<1>| it.try_into_vec_as::<f32>().unwrap();
        assert_eq!(of(sums(values.clone(), &[2, 0, 3, 1])), [3.0, 0.0, 12.0, 6.0]);
        assert_eq!(of(sums_of_heads(values.clone(), &[2, 0, 3, 1], &[1, 5, 2, 0])), [1.0, 0.0, 7.0, 0.0]);
        assert_eq!(of(sums(values, &[0, 0])), [0.0, 0.0]);
    }

    #[test]
    fn a_gradient_reaches_each_value_once() {
        let values = sequence(&[1.0, 2.0, 3.0, 4.0]).autodiff().require_grad();
        let weights = constant(&[10.0, 20.0], &values);
        let gradients = (sums(values.clone(), &[1, 3]) * weights).sum().backward();
        let gradient = values.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
        assert_eq!(gradient, [10.0, 20.0, 20.0, 20.0]);
    }

    #[test]
    fn a_value_of_a_completion_stands_at_its_tokens() {
        assert_eq!(spread(&[1.0, 2.0, 3.0], &[2, 0, 1]), [1.0, 1.0, 3.0]);
        let values = [1.0, 2.0, 3.0];
        assert_eq!(parts(&values, &[2, 0, 1]).collect::<Vec<_>>(), [&[1.0, 2.0][..], &[], &[3.0]]);
    }
}
