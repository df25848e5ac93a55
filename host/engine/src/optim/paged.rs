//! Moments in a mapped file: QLoRA's paged optimizer, <https://arxiv.org/abs/2305.14314>, section 3, with the system's own
//! pages. They are in memory while a parameter is updated, and given back behind it; what is in use elsewhere then decides
//! whether the system keeps them or writes them to the disk.
//!
//! `unsafe` here: mapping a file that has no name and that nobody else can open, and giving its pages back.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use fthost_kernels::adamw::{AdamWStep, adamw_on_host};
use memmap2::MmapMut;

use crate::error::{EngineError, Result};

/// First and second moment of one parameter, f32, one after the other.
#[derive(Debug)]
pub struct PagedMoments {
    pages: MmapMut,
    length: usize,
    folder: PathBuf,
}

impl PagedMoments {
    /// Before the first update of a parameter of `length` values, in a file of `folder` that has no name.
    ///
    /// # Errors
    /// A folder that can't be written to, and a disk without room: pages that find none later would end the program.
    pub fn zeros(length: usize, folder: &Path) -> Result<Self> {
        let io = |source| EngineError::io("write the optimizer's pages in", folder)(source);
        let file = tempfile::tempfile_in(folder).map_err(io)?;
        let mut writer = BufWriter::with_capacity(1 << 20, &file);
        // Written, not only made that long.
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), bytes_of(length) as u64), &mut writer)
            .map_err(io)?;
        writer.flush().map_err(io)?;
        drop(writer);
        // SAFETY: the file has no name and its one handle ends here, so that nobody else changes it or cuts it short.
        let pages = unsafe { MmapMut::map_mut(&file) }.map_err(io)?;
        Ok(Self { pages, length, folder: folder.to_path_buf() })
    }

    /// With these values.
    ///
    /// # Errors
    /// As [`PagedMoments::zeros`].
    pub fn of(first: &[f32], second: &[f32], folder: &Path) -> Result<Self> {
        let mut moments = Self::zeros(first.len(), folder)?;
        let [to_first, to_second] = moments.halves_mut();
        to_first.copy_from_slice(first);
        to_second.copy_from_slice(second);
        moments.release();
        Ok(moments)
    }

    /// Both moments.
    pub fn halves(&self) -> [&[f32]; 2] {
        let values: &[f32] = bytemuck::cast_slice(&self.pages[..bytes_of(self.length)]);
        values.split_at(self.length).into()
    }

    fn halves_mut(&mut self) -> [&mut [f32]; 2] {
        let values: &mut [f32] = bytemuck::cast_slice_mut(&mut self.pages[..bytes_of(self.length)]);
        values.split_at_mut(self.length).into()
    }

    /// The new value of the parameter.
    pub(super) fn update<const D: usize>(
        &mut self,
        value: Tensor<D>,
        gradient: Tensor<D>,
        step: &AdamWStep,
    ) -> Tensor<D> {
        let value = adamw_on_host(value, gradient, self.halves_mut(), step);
        self.release();
        value
    }

    /// Gives the pages back; they are read from the file where they are needed again.
    fn release(&self) {
        // SAFETY: the map is shared with its file, which has what was written to the pages.
        #[cfg(unix)]
        let advised = unsafe { self.pages.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        // It is a matter of memory alone.
        #[cfg(unix)]
        drop(advised);
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> usize {
        bytes_of(self.length)
    }
}

/// Both moments' bytes. A map is never empty.
fn bytes_of(length: usize) -> usize {
    2 * size_of::<f32>() * length
}

impl Clone for PagedMoments {
    /// # Panics
    /// Where a second file can't be made.
    fn clone(&self) -> Self {
        let [first, second] = self.halves();
        Self::of(first, second, &self.folder)
            .expect("there is room for a second file of the optimizer's pages")
    }
}
