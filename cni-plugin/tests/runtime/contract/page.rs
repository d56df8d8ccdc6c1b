//! docs/cni-contract.md has every test of the contract, and none that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What is in backquotes and looks like the name of a test.
fn named(page: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter(|it| it.chars().all(is_of_name) && it.matches('_').count() > 1).collect()
}

/// The tests that are in every version.
fn listed(sources: &str) -> Vec<&str> {
    let (mut names, mut is_in_list) = (Vec::new(), false);
    for line in sources.lines() {
        match line {
            "in_every_version! {" => is_in_list = true,
            "}" => is_in_list = false,
            name if is_in_list => names.push(name.trim().trim_end_matches(',')),
            _ => {}
        }
    }
    names
}

/// Every source file below a directory, in one.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("there")) {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text += &fs::read_to_string(path).expect("UTF-8");
        }
    }
    text
}

#[test]
fn the_page_has_every_test_of_the_contract_and_none_that_is_not_there() {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = plugin.parent().expect("the workspace");
    let page = fs::read_to_string(root.join("docs/cni-contract.md")).expect("the page");
    let named = named(&page);
    let all = sources(plugin) + &sources(&root.join("vswitch"));
    for name in &named {
        assert!(all.contains(&format!("fn {name}(")), "the page has {name}, which is no test");
    }
    let contract = sources(&plugin.join("tests/runtime/contract"));
    let ours = listed(&contract);
    assert!(ours.len() >= 49, "one for each item: {ours:?}");
    for name in ours {
        assert!(named.contains(name), "the page lacks {name}");
    }
}
