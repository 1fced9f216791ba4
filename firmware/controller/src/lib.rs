//! A transport-neutral NVMe controller: subsystem, namespaces, admin and I/O semantics.
//!
//! NVM Express Base Specification 2.0 (Base), NVM Command Set Specification 1.0 (NVM). It knows neither
//! PDUs nor sockets nor drives: a transport brings commands and moves data, a [`Backend`] carries out block
//! I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod backend;

pub use backend::{Backend, BackendNamespace, IoCompletion, IoRequest, Operation, RejectReason, Rejected};
