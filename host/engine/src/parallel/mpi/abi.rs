//! What the three binary interfaces of MPI call the same things.
//!
//! Functions have one name and one order of arguments in all of them; handles and constants differ. Open MPI's handles are
//! addresses of symbols, MPICH's are of type `int`, those of MPI 5's standard interface small numbers in a pointer.

use std::ffi::c_int;

/// A handle, wide enough for all of them: on the machines that `library` asserts, an `int` is passed in the low half of a register
/// or of a place on the stack, and one that is written to a zeroed place of this size reads the same.
pub(super) type Handle = usize;

/// Which interface a library has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    /// `libmpi.so.40`.
    OpenMpi,
    /// `libmpi.so.12`: MPICH, Intel MPI, MVAPICH, Cray's.
    Mpich,
    /// `libmpi_abi.so.1`: MPI 5.
    Standard,
}

/// Handles and constants of one interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    /// `MPI_COMM_WORLD`.
    pub world: Handle,
    /// `MPI_FLOAT`.
    pub float: Handle,
    /// `MPI_BYTE`.
    pub byte: Handle,
    /// `MPI_SUM`.
    pub sum: Handle,
    /// `MPI_INFO_NULL`.
    pub info_null: Handle,
    /// `MPI_ERRORS_RETURN`.
    pub errors_return: Handle,
    /// `MPI_IN_PLACE`, an address that is none.
    pub in_place: usize,
    /// `MPI_COMM_TYPE_SHARED`.
    pub shared: c_int,
    /// `MPI_THREAD_SERIALIZED`.
    pub serialized: c_int,
}

impl Constants {
    /// Those of MPICH's common interface, <https://www.mpich.org/abi/>: `mpi.h` of MPICH 5.0.
    pub(super) const MPICH: Self = Self {
        world: 0x4400_0000,
        float: 0x4c00_040a,
        byte: 0x4c00_010d,
        sum: 0x5800_0003,
        info_null: 0x1c00_0000,
        errors_return: 0x5400_0001,
        in_place: usize::MAX,
        shared: 1,
        serialized: 2,
    };

    /// Those of MPI 5.0's standard interface, chapter 20: `mpi_abi.h` of MPICH 5.0.
    pub(super) const STANDARD: Self = Self {
        world: 0x101,
        float: 0x210,
        byte: 0x247,
        sum: 0x21,
        info_null: 0x130,
        errors_return: 0x143,
        in_place: 1,
        shared: 221,
        serialized: 2048,
    };

    /// Those of Open MPI, 4 and 5, whose handles are the addresses that `symbol` finds.
    pub(super) fn open_mpi<E>(symbol: impl Fn(&str) -> Result<Handle, E>) -> Result<Self, E> {
        Ok(Self {
            world: symbol("ompi_mpi_comm_world")?,
            float: symbol("ompi_mpi_float")?,
            byte: symbol("ompi_mpi_byte")?,
            sum: symbol("ompi_mpi_op_sum")?,
            info_null: symbol("ompi_mpi_info_null")?,
            errors_return: symbol("ompi_mpi_errors_return")?,
            in_place: 1,
            shared: 0,
            serialized: 2,
        })
    }
}
