//! The functions of a library that is loaded at run time, each under the name that it is called by here.

/// A struct `Functions` of pointers, and `Functions::of` a library. Whoever lists them answers for their signatures.
macro_rules! functions {
    ($($field:ident = $name:literal : fn($($type:ty),*) $(-> $found:ty)?;)*) => {
        /// Functions of the library under their names.
        #[derive(Debug)]
        struct Functions {
            $($field: unsafe extern "C" fn($($type),*) -> $crate::parallel::functions::found!($($found)?)),*
        }

        impl Functions {
            fn of(library: &libloading::os::unix::Library) -> std::result::Result<Self, libloading::Error> {
                // SAFETY: the signatures are those that the library's own header has for these names.
                unsafe { Ok(Self { $($field: *library.get(concat!($name, "\0").as_bytes())?),* }) }
            }
        }
    };
}

/// What a function gives: a code, unless it says something else.
macro_rules! found {
    () => {
        std::ffi::c_int
    };
    ($found:ty) => {
        $found
    };
}

pub(in crate::parallel) use {found, functions};
