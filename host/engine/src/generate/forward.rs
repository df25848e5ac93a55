//! Forward passes without a graph: whole sequences end to end, or new tokens of sequences that lie in the cache.

use std::ops::Range;

use burn::tensor::Tensor;

use super::cache::KvCache;
use crate::models::CausalLm;
use crate::models::causal_lm::ids_tensor;
use crate::nn::Rope;

/// Start of each sequence and, last, the end of all.
fn bounds(positions: &[Range<usize>]) -> Vec<usize> {
    let ends = positions.iter().scan(0, |end, it| {
        *end += it.len();
        Some(*end)
    });
    [0].into_iter().chain(ends).collect()
}

/// Positions end to end.
fn ids_of(positions: &[Range<usize>]) -> Vec<u32> {
    positions.iter().flat_map(|it| it.start as u32..it.end as u32).collect()
}

/// The blocks over whole sequences, end to end: what they leave, `[T, D]`, before the final norm.
pub(super) fn whole(model: &CausalLm, sequences: &[&[u32]]) -> Tensor<2> {
    let before = model.virtual_tokens();
    let positions: Vec<Range<usize>> = sequences.iter().map(|it| before..before + it.len()).collect();
    let with_virtual = || (before > 0).then_some(0..before).into_iter().chain(positions.iter().cloned());
    let (all, lengths): (Vec<_>, Vec<_>) = with_virtual().map(|it| (it.clone(), it.end)).unzip();
    let tables = |rope: &Rope| rope.tables_by_sequence(&all, &lengths, &model.device());
    let context = model.context_behind(tables, &bounds(&positions), &[]);
    let x = model.behind_prompt(model.embed(&sequences.concat(), &ids_of(&positions)));
    model.without_prompt(model.blocks.iter().fold(x, |x, block| block.forward(x, &context)))
}

/// New tokens of a sequence in the cache.
#[derive(Debug, Clone, Copy)]
struct New<'a> {
    row: usize,
    ids: &'a [u32],
    /// Tokens that the sequence will have when all that is known of it has been read.
    length: usize,
}

/// The blocks over new tokens, end to end: what they leave, `[T, D]`, before the final norm.
fn extend(model: &CausalLm, cache: &mut KvCache, new: &[New<'_>]) -> Tensor<2> {
    let positions: Vec<Range<usize>> = new
        .iter()
        .map(|it| {
            let first = cache.before() + cache.length(it.row);
            first..first + it.ids.len()
        })
        .collect();
    let lengths: Vec<usize> = new.iter().map(|it| cache.before() + it.length).collect();
    let counts: Vec<(usize, usize)> = new.iter().map(|it| (it.row, it.ids.len())).collect();
    let ids: Vec<u32> = new.iter().flat_map(|it| it.ids.iter().copied()).collect();
    through_blocks(model, cache, &counts, (&positions, &lengths), model.embed(&ids, &ids_of(&positions)))
}

/// The blocks over `x`, which are new tokens: of each row, as many as stand beside its number, at those positions of sequences
/// of those lengths.
fn through_blocks(
    model: &CausalLm,
    cache: &mut KvCache,
    counts: &[(usize, usize)],
    (positions, lengths): (&[Range<usize>], &[usize]),
    mut x: Tensor<2>,
) -> Tensor<2> {
    let tables = |rope: &Rope| rope.tables_by_sequence(positions, lengths, &model.device());
    let context = model.context_with(tables, bounds(positions).into(), [].into());
    let mut config = cache.extend(counts);
    for (layer, block) in model.blocks.iter().enumerate() {
        block.configure(&mut config);
        let mixed = cache.attend(layer, &config, block.projected(x.clone()), block.tables(&context));
        x = block.finish(x, mixed);
    }
    x
}

/// Reads the virtual tokens of `model`, if it has any, into the cache, which has no row yet: every row will begin with them.
pub(super) fn begin(model: &CausalLm, cache: &mut KvCache) {
    let count = model.virtual_tokens();
    if count == 0 {
        return;
    }
    let (counts, positions) = ([(cache.open(), count)], 0..count);
    match model.embedded_prompt() {
        Some(prompt) => {
            let positions = std::slice::from_ref(&positions);
            through_blocks(model, cache, &counts, (positions, &[count]), prompt);
        }
        None => {
            let (mut config, encoded) = (cache.extend(&counts), model.encoded_prefix());
            for (layer, block) in model.blocks.iter().enumerate() {
                block.configure(&mut config);
                if let Some(rows) = block.prefix_rows(encoded.as_ref(), model.compute_dtype.into()) {
                    cache.attend(layer, &config, rows, None);
                }
            }
        }
    }
    cache.make_root();
}

/// Reads prompts into the cache, `chunk` tokens at a time, each into its row: the logits after each prompt,
/// `[prompts, V]`. Several short prompts share a chunk, and a long one has several.
pub(super) fn prefill(
    model: &CausalLm,
    cache: &mut KvCache,
    prompts: &[(usize, &[u32])],
    chunk: usize,
) -> Tensor<2> {
    let mut last = Vec::new();
    for new in chunks(prompts, chunk) {
        let x = extend(model, cache, &new);
        let ends = new.iter().scan(0, |end, it| {
            *end += it.ids.len() as u32;
            Some((*end - 1, cache.length(it.row) == it.length))
        });
        let ends: Vec<u32> = ends.filter(|it| it.1).map(|it| it.0).collect();
        if !ends.is_empty() {
            last.push(x.select(0, ids_tensor(&ends, &model.device())));
        }
    }
    // Only what is asked for goes through the head, by far the largest product.
    model.logits(model.final_norm(Tensor::cat(last, 0)))
}

/// Cuts `prompts` into groups of at most `chunk` tokens, in order.
fn chunks<'a>(prompts: &[(usize, &'a [u32])], chunk: usize) -> Vec<Vec<New<'a>>> {
    let (mut groups, mut space) = (vec![Vec::new()], chunk);
    for &(row, ids) in prompts {
        let (mut rest, length) = (ids, ids.len());
        while !rest.is_empty() {
            if space == 0 {
                groups.push(Vec::new());
                space = chunk;
            }
            let (ids, later) = rest.split_at(rest.len().min(space));
            groups.last_mut().expect("one at least").push(New { row, ids, length });
            space -= ids.len();
            rest = later;
        }
    }
    groups
}

/// What of the first rows' `sequences` is not in the cache yet, mostly their last token: the logits after it, `[rows, V]`.
pub(super) fn step(model: &CausalLm, cache: &mut KvCache, sequences: &[&[u32]]) -> Tensor<2> {
    let new = sequences.iter().enumerate();
    let new: Vec<New<'_>> =
        new.map(|(row, ids)| New { row, ids: &ids[cache.length(row)..], length: ids.len() }).collect();
    let x = extend(model, cache, &new);
    let ends: Vec<u32> = new
        .iter()
        .scan(0, |end, it| {
            *end += it.ids.len() as u32;
            Some(*end - 1)
        })
        .collect();
    let x = if ends.len() == x.dims()[0] { x } else { x.select(0, ids_tensor(&ends, &model.device())) };
    model.logits(model.final_norm(x))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::load_model;
    use crate::generate::cache::PAGE;

    /// Logits are of order 1; sums are taken in two orders, through two blocks: 1e-5.
    #[test]
    fn a_prompt_in_chunks_is_read_as_in_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama");
        for name in MODELS {
            let model = load_model(&folder.join(name), &burn::tensor::Device::flex()).unwrap();
            let vocab = model.config.vocab_size as u32;
            let longest = (2 * PAGE + 5).min(model.config.context_length() - 1);
            let prompts: Vec<Vec<u32>> = [3, longest, 1, 7]
                .iter()
                .map(|length| (0..*length as u32).map(|it| (it * 7 + *length as u32) % vocab).collect())
                .collect();
            let read = |chunk: usize| {
                let mut cache = KvCache::new(&model, 1);
                let rows: Vec<(usize, &[u32])> =
                    prompts.iter().map(|it| (cache.open(), it.as_slice())).collect();
                let logits = prefill(&model, &mut cache, &rows, chunk);
                let longer: Vec<Vec<u32>> =
                    prompts.iter().zip(1..).map(|(it, next)| [&it[..], &[next]].concat()).collect();
                let longer: Vec<&[u32]> = longer.iter().map(Vec::as_slice).collect();
                [logits, step(&model, &mut cache, &longer)]
            };
            let expected = read(4096);
            for chunk in [1, 5, 16, 64] {
                for (got, expected) in read(chunk).into_iter().zip(expected.clone()) {
                    let worst = (got - expected).abs().max().into_scalar::<f32>();
                    assert!(worst < 1e-5, "{name}, chunks of {chunk}: differs by {worst:e}");
                }
            }
        }
    }

    const MODELS: [&str; 3] = ["gqa_tied", "bias_untied", "rope_dynamic"];
}
