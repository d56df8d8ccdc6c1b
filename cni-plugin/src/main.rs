//! Entry of the binary `vswitch-cni`; everything else is in the library, where tests reach it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vswitch_cni::run()
}
