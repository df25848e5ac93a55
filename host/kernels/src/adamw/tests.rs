//! Against torch and bitsandbytes: `tests/golden/generate/adamw.py`.

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;

use super::map::nearest;
use super::*;
use crate::check::random;

/// As in the generator.
const STEP: AdamWStep = AdamWStep {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
    gradient_scale: 1.0,
    updates: 1,
};
const STEPS: u64 = 6;

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/adamw.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap_or_else(|_| panic!("{name}")).data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect()
    }
}

fn tensor_of<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values_of<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.clone().try_into_vec_as().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|it| it.to_bits()).collect()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{what}, {index}: {got} is not {expected}");
    }
}

type Update = fn(Tensor<2>, Tensor<2>, Moments, &AdamWStep) -> (Tensor<2>, Moments);

/// Values of order 1 that move by 1e-2 a step, in f32: 2e-6 after six. The norm is a sum in f64.
#[test]
fn updates_and_clipping_match_torch() {
    let golden = Golden::open();
    for update in [adamw as Update, adamw_reference] {
        let start = |name: &str, shape| tensor_of::<2>(golden.floats(&format!("f32.{name}.0")), shape);
        let mut all = [("matrix", [7, 9], 0.1), ("vector", [37, 1], 0.0)].map(|(name, shape, decay)| {
            let value = start(name, shape);
            (name, shape, decay, Moments::zeros(&value), value)
        });
        for updates in 1..=STEPS {
            let gradient = |name: &str| golden.floats(&format!("f32.{name}.grad.{updates}"));
            let gradients = ["matrix", "vector"].map(|name| {
                let values = gradient(name);
                let length = values.len();
                tensor_of(values, [length])
            });
            let expected = golden.floats(&format!("f32.norm.{updates}"))[0];
            let norm = global_norm(&gradients);
            assert!((norm - f64::from(expected)).abs() < 1e-6 * norm);
            assert!((global_norm_reference(&gradients) - norm).abs() < 1e-6 * norm);
            for (name, shape, weight_decay, moments, value) in &mut all {
                let gradient_scale = (1.0 / (norm + 1e-6)).min(1.0);
                let step = AdamWStep { weight_decay: *weight_decay, gradient_scale, updates, ..STEP };
                let gradient = tensor_of(gradient(name), *shape);
                (*value, *moments) = update(value.clone(), gradient, moments.clone(), &step);
                let expected = golden.floats(&format!("f32.{name}.{updates}"));
                assert_close(name, &values_of(value), &expected, 2e-6);
            }
        }
    }
}

#[test]
fn what_nobody_else_holds_is_written_in_place_and_what_is_shared_is_not_touched() {
    let place = |it: &Tensor<1>| primitive(it.clone()).bytes().as_ptr();
    let gradient = random([70_001], 2);
    let [value, shared] = [random([70_001], 1), random([70_001], 1)];
    let moments = Moments::zeros(&value);
    let places = [place(&value), place(&moments.first), place(&moments.second)];
    let (value, moments) = adamw(value, gradient.clone(), moments, &STEP);
    assert_eq!([place(&value), place(&moments.first), place(&moments.second)], places);

    let (changed, _) = adamw(shared.clone(), gradient.clone(), Moments::zeros(&shared), &STEP);
    assert_eq!(values_of(&shared), values_of(&random::<1>([70_001], 1)));
    assert_eq!(values_of(&changed), values_of(&value));

    let place_before = place(&value);
    let value = adamw8bit(value, gradient, &mut BlockMoments::zeros(70_001), &STEP);
    assert_eq!(place(&value), place_before);
}

#[test]
fn one_thread_and_three_give_the_same_bits() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (value, gradient) = (random([123_457], 1), random([123_457], 2));
            let norm = global_norm(&[value.clone(), gradient.clone()]);
            let mut blocks = BlockMoments::zeros(123_457);
            let other = adamw8bit(value.clone(), gradient.clone(), &mut blocks, &STEP);
            let (value, moments) = adamw(value.clone(), gradient, Moments::zeros(&value), &STEP);
            let floats = [&value, &other, &moments.first, &moments.second].map(|it| bits(&values_of(it)));
            (norm.to_bits(), blocks, floats)
        })
    };
    assert!(on(1) == on(3));
}

#[test]
fn a_norm_holds_what_a_square_in_f32_does_not() {
    let large = tensor_of(vec![3e30, 4e30], [2]);
    assert!((global_norm(&[large]) / 5e30 - 1.0).abs() < 1e-6);
    assert!(global_norm(&[tensor_of(vec![1.0, f32::NAN], [2])]).is_nan());
    assert_eq!(global_norm(&[]), 0.0);
}

/// Oracle: bitsandbytes, bit for bit.
#[test]
fn codes_are_those_of_bitsandbytes() {
    let golden = Golden::open();
    for (name, map) in [("signed", signed_map()), ("unsigned", unsigned_map())] {
        assert_eq!(bits(map.values()), bits(&golden.floats(&format!("map.{name}"))), "{name}");
        let read = |what: &str| golden.floats(&format!("quantize.{name}.{what}"));
        let blocks = Blocks::quantize(&read("values"), map);
        assert_eq!(bits(&blocks.absmax), bits(&read("absmax")), "{name}");
        assert_eq!(blocks.codes, golden.bytes(&format!("quantize.{name}.codes")), "{name}");
    }
}

/// Oracle: the update in f32 around bitsandbytes' rounding. Its additions are rounded in another order than ours, which
/// can move a moment that lies in the middle of two codes to the other: one in 500 at most, by one code.
#[test]
fn updates_in_blocks_match_bitsandbytes() {
    let golden = Golden::open();
    let mut value = tensor_of(golden.floats("blocks.value.0"), [1000]);
    let mut moments = BlockMoments::zeros(1000);
    for updates in 1..=STEPS {
        let gradient = tensor_of(golden.floats(&format!("blocks.grad.{updates}")), [1000]);
        value = adamw8bit(value, gradient, &mut moments, &AdamWStep { updates, ..STEP });
        let expected = golden.floats(&format!("blocks.value.{updates}"));
        let far = values_of(&value).iter().zip(&expected).filter(|(a, b)| (**a - **b).abs() > 2e-6).count();
        assert!(far <= 2, "step {updates}: {far} values differ");
        for (name, got) in [("first", &moments.first), ("second", &moments.second)] {
            let codes = golden.bytes(&format!("blocks.{name}.codes.{updates}"));
            let differences = got.codes.iter().zip(&codes).map(|(a, b)| a.abs_diff(*b));
            let different: Vec<u8> = differences.filter(|it| *it > 0).collect();
            assert!(different.len() <= 2 && different.iter().all(|it| *it == 1), "{name}: {different:?}");
            let absmax = golden.floats(&format!("blocks.{name}.absmax.{updates}"));
            let largest = absmax.iter().fold(0.0f32, |a, b| a.max(*b));
            assert_close(name, &got.absmax, &absmax, 1e-6 * largest);
        }
    }
}

/// Both ends of every piece that the table knows, and what lies around each middle between two values.
#[test]
fn the_table_finds_the_nearest_value() {
    let check = |map: &Map, x: f32| {
        if (-1.0..=1.0).contains(&x) {
            assert_eq!(map.code(x), nearest(map.values(), x), "{x}");
        }
    };
    for map in [signed_map(), unsigned_map()] {
        for half in 0..1 << 16 {
            check(map, f32::from_bits(half << 16));
            check(map, f32::from_bits(half << 16 | 0xffff));
        }
        for pair in map.values().windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0;
            for steps in -4..=4i32 {
                check(map, f32::from_bits((middle.to_bits() as i32 + steps) as u32));
            }
        }
    }
}

#[test]
fn a_block_of_zeros_stays_zero() {
    for map in [signed_map(), unsigned_map()] {
        let values = [vec![0.0; BLOCK], vec![1.0; 3], vec![-0.0; 2]].concat();
        let found = Blocks::quantize(&values, map).dequantize(map);
        assert_eq!(found, values);
    }
}

#[test]
fn moments_in_blocks_take_two_bytes_a_value_and_eight_a_block() {
    assert_eq!(BlockMoments::zeros(1 << 20).bytes(), (2 << 20) + 8 * (1 << 12));
    assert_eq!(BlockMoments::zeros(257).bytes(), 2 * 257 + 8 * 2);
}
