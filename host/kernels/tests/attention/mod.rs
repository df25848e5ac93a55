//! Attention against torch in float64, masks and caps by transformers: `tests/golden/generate/attention.py`.
//!
//! Ours is f32: scores of up to 8 products, sums of up to 300 weights behind an exponential, so 1e-5 of the largest value.

use burn::tensor::{Device, Tensor, TensorData};
use fthost_kernels::{AttentionConfig, attention, qkv_attention};
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-5;

/// A case of the golden file.
struct Case<'a> {
    file: SafeTensors<'a>,
    name: &'static str,
}

impl Case<'_> {
    fn words<T>(&self, name: &str, read: impl Fn([u8; 4]) -> T) -> (Vec<T>, Vec<usize>) {
        let view = self.file.tensor(&format!("{}.{name}", self.name)).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|it| read(*it)).collect();
        (values, view.shape().to_vec())
    }

    fn counts(&self, name: &str) -> Vec<usize> {
        self.words(name, |it| i32::from_le_bytes(it) as usize).0
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.words(name, f32::from_le_bytes).0.first().map(|it| f64::from(*it))
    }

    fn matrix(&self, name: &str) -> Tensor<2> {
        let (values, shape) = self.words(name, f32::from_le_bytes);
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn assert_close(&self, name: &str, got: Tensor<2>) {
        let (expected, got) = (self.words(name, f32::from_le_bytes).0, got.try_into_vec_as::<f32>().unwrap());
        assert_eq!(got.len(), expected.len(), "{}.{name}", self.name);
        let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            let difference = (got - expected).abs() / largest;
            assert!(difference < TOLERANCE, "{}.{name}: {got} is not {expected}", self.name);
        }
    }
}

#[test]
fn attention_matches_torch_packed_windowed_capped_and_rotated() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/attention.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let whole = ["packed", "window", "packed_window", "long", "long_window"];
    let capped = ["capped", "capped_window", "capped_long"];
    let partial = ["partial", "capped_partial"];
    for name in [&whole[..], &capped, &partial].concat() {
        let case = Case { file: SafeTensors::deserialize(&bytes).unwrap(), name };
        let (heads, kv_heads) = (case.counts("heads")[0], case.counts("heads")[1]);
        let [tokens, width] = case.matrix("qkv").dims();
        let head_dim = width / (heads + 2 * kv_heads);
        let config = AttentionConfig {
            cu_seqlens: case.counts("bounds").into(),
            parents: [].into(),
            scale: (head_dim as f64).powf(-0.5),
            window: Some(case.counts("window")[0]).filter(|it| *it > 0),
            softcap: case.number("softcap").filter(|it| *it > 0.0),
        };
        let tables = || (case.matrix("cos").autodiff(), case.matrix("sin").autodiff());
        for (kind, tables) in [("plain", None), ("merged", None), ("rotated", Some(tables()))] {
            let qkv = case.matrix("qkv").autodiff().require_grad();
            let part = |first: usize, heads: usize| {
                let part = qkv.clone().narrow(1, first * head_dim, heads * head_dim);
                part.reshape([tokens, heads, head_dim])
            };
            let output = if kind == "plain" {
                let (k, v) = (part(heads, kv_heads), part(heads + kv_heads, kv_heads));
                attention(part(0, heads), k, v, &config).reshape([tokens, heads * head_dim])
            } else {
                qkv_attention(qkv.clone(), tables, heads, kv_heads, &config)
            };
            // Queries, keys and values side by side without a rotation are what is plain.
            let kind = if kind == "merged" { "plain" } else { kind };
            case.assert_close(&format!("{kind}.out"), output.clone().inner());
            let graph = (output * case.matrix("up").autodiff()).sum().backward();
            case.assert_close(&format!("{kind}.grad.qkv"), qkv.grad(&graph).unwrap());
        }
    }
}
