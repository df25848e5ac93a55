//! What ranks that share a model write of it: a file each, with its pieces of weights and moments, and an index that says which
//! values they are. Nothing is gathered for it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::moments::{self, Stored, tensors_of};
use super::stretches::{Index, Place};
use super::write::write_whole;
use crate::error::Result;
use crate::parallel::Collective;
use crate::train::TrainState;

/// Where pieces are, in a checkpoint of several ranks.
pub(super) const INDEX: &str = "shards.index.json";

/// The file of one of so many ranks.
fn file_of(rank: usize, ranks: usize) -> String {
    format!("shard-{:05}-of-{ranks:05}.safetensors", rank + 1)
}

/// The file that a rank has written, and which values it has of which parameter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pieces {
    pub file: String,
    places: Vec<(String, Place)>,
}

/// Writes this rank's file into `folder`. `None` of a rank whose pieces another has, too, and writes.
pub(super) fn write(state: &mut TrainState, folder: &Path) -> Result<Option<Pieces>> {
    let mesh = &state.model.shards.as_ref().expect("the model is shared").mesh;
    if !mesh.replicate.is_first() {
        return Ok(None);
    }
    let (rank, ranks) = (mesh.shard.global_rank(), mesh.shard.size());
    let (mut places, mut values) = (Vec::new(), Vec::new());
    state.visit_stretches(&mut |name, begin, parameter| {
        let piece = parameter.flat();
        places.push((name.to_string(), Place { shard: rank, begin, length: piece.dims()[0] }));
        values.push((name.to_string(), piece));
    });
    let pieces = values.iter().map(|(name, it)| (name.clone(), Stored::F32(it, it.dims())));
    let file = file_of(rank, ranks);
    moments::write(&folder.join(&file), pieces.chain(tensors_of(&state.optimizer)).collect())?;
    Ok(Some(Pieces { file, places }))
}

/// Writes the index of what all ranks have written, in their order.
pub(super) fn write_index(folder: &Path, written: &[Pieces]) -> Result<()> {
    let mut index = Index::default();
    for Pieces { file, places } in written {
        index.shards.push(file.clone());
        for (name, place) in places {
            index.parameters.entry(name.clone()).or_default().push(*place);
        }
    }
    let text = serde_json::to_vec_pretty(&index).expect("an index serialises");
    write_whole(&folder.join(INDEX), &text)
}
