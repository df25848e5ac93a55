//! Against bitsandbytes: `tests/golden/generate/four_bit.py`. Every comparison is of bits.

use safetensors::SafeTensors;

use super::*;
use crate::packed::Packed;

const KINDS: [(&str, FourBitKind); 2] = [("nf4", FourBitKind::Nf4), ("fp4", FourBitKind::Fp4)];
const CASES: [&str; 10] =
    ["few", "even", "rows", "many", "nested_whole", "outliers", "zeros", "nothing", "tiny", "middles"];

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/four_bit.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap_or_else(|_| panic!("{name}")).data().to_vec()
    }

    fn bits(&self, name: &str) -> Vec<u32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it)).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bits(name).into_iter().map(f32::from_bits).collect()
    }

    fn shape(&self, name: &str) -> [usize; 2] {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().shape().try_into().unwrap()
    }
}

fn dequantized(weight: &FourBit) -> Vec<f32> {
    Packed::from(weight.clone()).dequantize()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|it| it.to_bits()).collect()
}

/// That every value of `found` is bitsandbytes'. Where its library takes no vectors, the second zero of fp4 comes back
/// negative; ours is positive everywhere, as that of the code itself. There, zeros are compared without their signs.
fn assert_values(golden: &Golden, name: &str, found: &FourBit) {
    let of_vectors = found.shape[1].is_multiple_of(32);
    let compared = |it: f32| if it == 0.0 && !of_vectors { 0 } else { it.to_bits() };
    for (place, (found, expected)) in dequantized(found).into_iter().zip(golden.floats(name)).enumerate() {
        assert_eq!(compared(found), compared(expected), "{name}, {place}: {found} is not {expected}");
    }
}

#[test]
fn codes_factors_and_values_are_those_of_bitsandbytes() {
    let golden = Golden::open();
    for case in CASES {
        let name = format!("{case}.values");
        let (values, shape) = (golden.floats(&name), golden.shape(&name));
        for (name, kind) in KINDS {
            let config = FourBitConfig { kind, double_quant: false, ..FourBitConfig::default() };
            let found = FourBit::quantize(&values, shape, config);
            let named = |it: &str| format!("{case}.{name}.{it}");
            assert_eq!(found.codes, golden.bytes(&named("codes")), "{}", named("codes"));
            let Absmax::Plain(absmax) = &found.absmax else { panic!("asked for") };
            assert_eq!(bits(absmax), golden.bits(&named("absmax")), "{}", named("absmax"));
            assert_values(&golden, &named("dequantized"), &found);
        }
    }
}

#[test]
fn doubly_quantised_factors_are_those_of_bitsandbytes() {
    let golden = Golden::open();
    for case in CASES {
        let name = format!("{case}.values");
        let (values, shape) = (golden.floats(&name), golden.shape(&name));
        for (name, kind) in KINDS {
            let found = FourBit::quantize(&values, shape, FourBitConfig { kind, ..Default::default() });
            let named = |it: &str| format!("{case}.{name}.nested.{it}");
            let Absmax::Nested { codes, absmax, offset } = &found.absmax else { panic!("asked for") };
            assert_eq!([offset.to_bits()], *golden.bits(&named("offset")), "{}", named("offset"));
            assert_eq!(bits(absmax), golden.bits(&named("absmax")), "{}", named("absmax"));
            assert_eq!(*codes, golden.bytes(&named("codes")), "{}", named("codes"));
            assert_values(&golden, &named("dequantized"), &found);
        }
    }
}

#[test]
fn the_sixteen_values_are_those_of_bitsandbytes() {
    let golden = Golden::open();
    for (name, kind) in KINDS {
        let pairs = &Code::of(kind).pairs;
        let low: Vec<f32> = pairs[..16].iter().map(|it| it[1]).collect();
        let high: Vec<f32> = pairs.iter().step_by(16).map(|it| it[0]).collect();
        for values in [low, high] {
            assert_eq!(bits(&values), golden.bits(&format!("code.{name}")), "{name}");
        }
    }
}

/// As in the generator; no weight of the golden file has so many blocks.
#[test]
fn the_mean_is_torchs() {
    let golden = Golden::open();
    let hashed = |index: u32| (index.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
    let counts = [
        1, 3, 7, 8, 9, 31, 32, 33, 63, 100, 255, 511, 512, 513, 1000, 2047, 2048, 4097, 9000, 32_767, 36_864,
        200_001,
    ];
    for count in counts {
        let values: Vec<f32> = (0..count).map(hashed).collect();
        assert_eq!([nested::mean(&values).to_bits()], *golden.bits(&format!("mean.{count}")), "{count}");
    }
}

#[test]
fn what_is_not_finite_does_not_panic() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
        for (_, kind) in KINDS {
            let config = FourBitConfig { kind, ..Default::default() };
            dequantized(&FourBit::quantize(&[value; 130], [10, 13], config));
        }
    }
    let none = FourBit::quantize(&[], [0, 7], FourBitConfig::default());
    assert!(dequantized(&none).is_empty());
}

/// 4 bits a value and 8 + 32 / 256 a block of 64.
#[test]
fn bytes_are_counted() {
    let weight = FourBit::quantize(&[1.0; 1 << 16], [256, 256], FourBitConfig::default());
    assert_eq!(weight.bytes(), (1 << 15) + (1 << 10) + 4 * 4 + 4);
}
