//! The whole walk: any packets by any port, with any offload, through tables of every kind.

#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| vswitch_fuzz::walk(file));
