//! Adapters that begin as a part of the weight they stand beside: PiSSA, <https://arxiv.org/abs/2404.02948>, and OLoRA,
//! <https://arxiv.org/abs/2406.01775>, as PEFT computes them.
//!
//! What an adapter begins with has to be taken off the weight, so that the layer is what it was. PEFT changes the weight; here it
//! stays, frozen, mapped or packed as it is, and what was begun with is subtracted beside it
//! ([`Origin`](crate::nn::linear::Origin)): `W x + s (B A - B0 A0) x`. A reference without the adapter is the model itself,
//! and what is saved is a plain adapter of twice the rank, as PEFT's `path_initial_model_for_weight_conversion` makes one.

use burn::tensor::{Device, Tensor, TensorData};
use faer::{Mat, MatRef};
use fthost_kernels::Weight;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

/// `init_lora_weights`: what an adapter begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// A uniform in `±1 / sqrt(in)`, B zero.
    #[default]
    Default,
    /// A normal with a deviation of `1 / rank`, B zero.
    Gaussian,
    /// The weight's largest singular values and their vectors, by equal shares in A and B.
    Pissa,
    /// The first rows and columns of the weight's QR decomposition.
    Olora,
}

impl LoraInit {
    /// Whether what an adapter begins with is a part of the weight.
    pub fn is_of_weight(self) -> bool {
        matches!(self, Self::Pissa | Self::Olora)
    }

    /// As PEFT names it, in a run file as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Gaussian => "gaussian",
            Self::Pissa => "pissa",
            Self::Olora => "olora",
        }
    }
}

/// `A0`, `[rank, in]`, and `B0`, `[out, rank]`, of a weight.
///
/// # Errors
/// A rank above both of the weight's widths, by the linear's `path`; a weight that no decomposition is found of.
pub fn origin(
    init: LoraInit,
    path: &str,
    weight: &Weight,
    rank: usize,
    scaling: f64,
    device: &Device,
) -> Result<(Tensor<2>, Tensor<2>)> {
    let [out, width] = weight.dims();
    let failed =
        |problem: String| EngineError::Invalid { what: "adapter.lora".into(), problems: vec![problem] };
    if rank > out.min(width) {
        let of = init.name();
        return Err(failed(format!("`rank` = {rank} is more than `{path}`, {out} by {width}, has for {of}")));
    }
    let values = weight.to_dense(device).try_into_vec_as::<f32>().expect("a float tensor is read as f32");
    // In f64: directions whose singular values lie close to each other are told apart by few bits.
    let weight = Mat::from_fn(out, width, |row, column| f64::from(values[row * width + column]));
    drop(values);
    let (a, b) = match init {
        LoraInit::Pissa => pissa(weight.as_ref(), rank, scaling)
            .ok_or_else(|| failed(format!("`{path}` has no singular values that could be found")))?,
        LoraInit::Olora => {
            let decomposed = weight.qr();
            (
                decomposed.thin_R().subrows(0, rank).to_owned(),
                decomposed.compute_thin_Q().subcols(0, rank).to_owned(),
            )
        }
        LoraInit::Default | LoraInit::Gaussian => unreachable!("drawn without the weight"),
    };
    Ok((tensor(&a, device), tensor(&b, device)))
}

/// `sqrt(S / s) V^T` and `U sqrt(S / s)` of the largest singular values.
fn pissa(weight: MatRef<'_, f64>, rank: usize, scaling: f64) -> Option<(Mat<f64>, Mat<f64>)> {
    let decomposed = weight.thin_svd().ok()?;
    let (u, v, s) = (decomposed.U(), decomposed.V(), decomposed.S().column_vector());
    let root = |index: usize| (s[index] / scaling).sqrt();
    let a = Mat::from_fn(rank, weight.ncols(), |row, column| root(row) * v[(column, row)]);
    let b = Mat::from_fn(weight.nrows(), rank, |row, column| root(column) * u[(row, column)]);
    Some((a, b))
}

fn tensor(matrix: &Mat<f64>, device: &Device) -> Tensor<2> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    let values = (0..rows).flat_map(|row| (0..columns).map(move |column| matrix[(row, column)] as f32));
    Tensor::from_data(TensorData::new(values.collect(), [rows, columns]), device)
}
