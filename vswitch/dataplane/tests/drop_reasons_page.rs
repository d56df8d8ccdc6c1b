//! `docs/drop-reasons.md` is made of `DropReason`: this test compares the two, and writes the page
//! where `UPDATE_DOCS` is set.

use std::fmt::Write as _;
use std::{env, fs};

use dataplane::DropReason;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/drop-reasons.md");

const HEAD: &str = "\
# Drop reasons

Every packet that the switch does not forward is counted under exactly one of these reasons, at the port it
came in by. `vswitchctl show drops` shows the counters, and checks that the books close: what was received
and made equals what was sent and dropped. `vswitchctl trace` gives the reason for a packet that you
describe. [operations.md](operations.md#troubleshooting) says what to do about the common ones.

`cargo test -p dataplane` compares this page with the code; `UPDATE_DOCS=1 cargo test -p dataplane` writes it.

| reason | explanation |
|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for reason in DropReason::ALL {
        writeln!(page, "| `{}` | {} |", reason.label(), reason.explanation())
            .expect("a string takes everything");
    }
    page
}

#[test]
fn the_page_of_drop_reasons_is_that_of_the_code() {
    let page = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PATH, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(PATH).unwrap_or_default();
    assert_eq!(written, page, "run: UPDATE_DOCS=1 cargo test -p dataplane");
}
