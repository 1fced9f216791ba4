//! Logging facade: defmt on the card, text on the host's standard error. No crate but this one and the sink
//! names defmt.
//!
//! The same call compiles for both, so that format strings keep to what both understand: `{}`, `{:?}`,
//! `{:x}`, `{:#x}`, `{:02x}`, `{:#010x}`, each with an argument after the string (no names captured from
//! the scope, no width without zero padding). Arguments are integers, `bool`, `&str`, and `core::net`'s
//! addresses. Other types are taken apart by the caller: an enum gets a `name()` that returns `&'static
//! str`, a structure's fields are passed one by one. A trailing comma is fine; a format string that is not
//! a literal is not.
//!
//! ```
//! let (slot, status, name) = (3_u16, 0x4002_u16, "nvme0");
//! hal_log::warn!("{}: slot {} ended with status {:#06x}", name, slot, status);
//! hal_log::info!("link is up");
//! ```
//!
//! On the card `DEFMT_LOG` at build time says which levels are compiled in (default `info`; a call below
//! the level costs nothing). On the host `PENSTOCK_LOG` at run time is one of `off`, `error`, `warn`,
//! `info`, `debug`, `trace` (default `warn`). Interrupt handlers do not log. Must not depend on anything of
//! ours.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
#[doc(hidden)]
pub use defmt;

#[cfg(not(target_os = "none"))]
#[doc(hidden)]
pub mod host;

#[cfg(target_os = "none")]
macro_rules! facade {
    ($dollar:tt $($(#[$doc:meta])* $name:ident $level:ident;)*) => { $(
        $(#[$doc])*
        #[macro_export]
        macro_rules! $name {
            ($dollar($dollar argument:tt)*) => {{
                // What defmt's macros expand to names the crate `defmt`, which the caller does not depend on.
                #[allow(unused_imports)]
                use $dollar crate::defmt;
                $dollar crate::defmt::$name!($dollar($dollar argument)*);
            }};
        }
    )* };
}

#[cfg(not(target_os = "none"))]
macro_rules! facade {
    ($dollar:tt $($(#[$doc:meta])* $name:ident $level:ident;)*) => { $(
        $(#[$doc])*
        #[macro_export]
        macro_rules! $name {
            ($dollar($dollar argument:tt)*) => {{
                if $dollar crate::host::enabled($dollar crate::host::Level::$level) {
                    $dollar crate::host::print(
                        $dollar crate::host::Level::$level,
                        ::core::format_args!($dollar($dollar argument)*),
                    );
                }
            }};
        }
    )* };
}

facade! { $
    /// Something is broken and stays so until someone acts.
    error Error;
    /// Something went wrong that the card deals with by itself.
    warn Warn;
    /// A rare event of normal operation: a link, a lease, a drive, a connection.
    info Info;
    /// What a developer wants to know about a request that fails.
    debug Debug;
    /// Each request.
    trace Trace;
}
