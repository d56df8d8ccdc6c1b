//! Every place, in the order in which a pod meets them.
//!
//! Enters: nothing. Leaves: the names, for the check of what a test asks for, and for the lab test
//! `failpoints`, which reads this file and does every fault at every place.

/// A place where a process can be made to wait, fail or die.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Name of the place.
    pub name: &'static str,
    /// How things are there.
    pub meaning: &'static str,
    /// False where nothing can fail.
    pub may_fail: bool,
}

const fn at(name: &'static str, meaning: &'static str) -> Place {
    Place { name, meaning, may_fail: true }
}

const fn sure(name: &'static str, meaning: &'static str) -> Place {
    Place { name, meaning, may_fail: false }
}

/// All of them.
#[rustfmt::skip]
pub const PLACES: &[Place] = &[
    // The plugin, ADD.
    at("cni-ipam-started", "the IPAM plugin is executed, and has not answered"),
    at("cni-add-allocated", "the IPAM plugin has given addresses"),
    at("call-reserve-sent", "the request for addresses is sent, and not answered"),
    at("cni-add-reserved", "the daemon holds addresses; the pod has no interface"),
    at("cni-add-tap", "the TAP is made, and ends with its descriptor"),
    at("cni-add-link", "it is marked as the pod's, has MTU and MAC, and is up"),
    at("cni-add-address", "it has its addresses"),
    at("cni-add-neighbor", "it has the gateways as neighbours, and the routes to them"),
    at("cni-add-route", "it has its routes; the daemon does not know it"),
    at("call-attach-sent", "its descriptor is sent, and not answered"),
    at("cni-add-attached", "the daemon forwards; the result is not printed"),
    at("cni-add-printed", "the result is printed"),
    at("cni-undo", "a step of an ADD that failed is about to be taken back"),
    // The plugin, DEL.
    at("call-detach-sent", "the request to let the pod go is sent, and not answered"),
    at("queue-write", "no daemon is there: the order for it is written under the unfinished name"),
    at("queue-put", "the order is in its place, perhaps not on disk"),
    at("cni-del-detached", "the daemon has let the pod go, or will; the interface is there"),
    at("cni-del-removed", "the interface is gone; the IPAM plugin was not asked"),
    at("cni-del-released", "the IPAM plugin has released the addresses"),
    // The plugin, for pods that lost their descriptor.
    at("cni-adjust-opened", "an interface is open again; the daemon does not have it"),
    // The daemon, ADD.
    at("add-reserve", "addresses are asked for"),
    at("add-reserve-done", "they are reserved; the answer is not held yet"),
    at("add-attach", "a port's descriptor has come"),
    at("add-port-adopted", "it is a TAP; nothing is done with it"),
    sure("add-port-persistent", "the TAP outlives its descriptors; no worker has it"),
    sure("add-port-given", "the workers have it; nobody keeps its descriptor for the next daemon"),
    at("store-keep", "the service manager is about to be given a descriptor"),
    sure("add-port-kept", "the descriptor is kept; no tables name the port"),
    at("add-attach-done", "everything is done; the answer is not held yet"),
    // The daemon, ADD and DEL.
    at("journal-write", "a line is about to be written"),
    at("journal-sync", "the lines are about to be synced"),
    at("change-publish", "tables are about to be published"),
    sure("change-published", "the workers use them"),
    at("change-on-disk", "the journal is synced; the answer is not sent"),
    // The daemon, DEL.
    at("del-detach", "a pod is to be let go"),
    sure("del-port-removed", "no worker has its port; the TAP is persistent"),
    sure("del-port-ended", "the TAP ends with its last descriptor, which is kept"),
    at("store-forget", "the service manager is about to be told to close a descriptor"),
    sure("del-port-forgotten", "its descriptor is not kept; it is open in this process"),
    at("del-detach-done", "everything is done; the answer is not held yet"),
    sure("del-queued-done", "a pod of the queue is let go, and still queued"),
    // The daemon, start.
    at("start-inherited", "the descriptors of the former daemon are taken"),
    at("start-locked", "no other daemon runs"),
    at("journal-read", "the journal is about to be read"),
    at("start-journal", "the journal is read, and what was queued is applied to it"),
    at("start-queue-emptied", "the queue is empty; the start goes on"),
    at("journal-fresh", "the journal is about to be written anew"),
    at("journal-replace", "the new journal is about to take the place of the former"),
    at("journal-room", "room on disk is about to be kept for the journal"),
    at("start-uplink", "the NIC gives us its packets; no worker runs"),
    at("start-workers", "the workers run"),
    at("start-host-port", "the host port is open, and kept"),
    at("start-kernel", "the host port has its addresses and routes; no former nftables table is replaced"),
    at("start-left", "the former daemon's ports wait for tables that name them"),
    at("start-tables", "the first tables are published"),
    at("start-nft-table", "the nftables table is this daemon's"),
    at("start-socket", "clients connect, and are not answered"),
    sure("start-ready", "what was queued meanwhile is done; the service manager does not know"),
    // The daemon, end.
    sure("stop-begun", "it is about to end; nothing is closed"),
    sure("stop-socket", "no client connects"),
    sure("stop-uplink", "the NIC is Linux's"),
    sure("stop-workers", "no worker runs"),
    sure("drain-nft", "drained: the nftables table is gone"),
    sure("drain-host-link", "drained: the host port is gone, and the routes that lead nowhere are not"),
    sure("drain-done", "drained: nothing is left but the process"),
    // The supervisor.
    at("supervise-start", "a daemon is about to be executed"),
    sure("supervise-kept", "a descriptor has come from the daemon"),
    sure("supervise-ended", "the daemon has ended"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::PLACES;

    /// The sources of the workspace's programs and libraries, without this crate.
    fn sources(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("read"))
        {
            let path = entry.path();
            let is_skipped = ["target", "failpoint", "tests", "fuzz"];
            if path.is_dir() && !is_skipped.iter().any(|name| path.ends_with(name)) {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&fs::read_to_string(&path).expect("text"));
            }
        }
    }

    #[test]
    fn every_place_is_in_the_code_once_and_in_this_list_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("..");
        let mut text = String::new();
        for part in ["vswitch", "cni-plugin"] {
            sources(&root.join(part), &mut text);
        }
        let names: BTreeSet<_> = PLACES.iter().map(|place| place.name).collect();
        assert_eq!(names.len(), PLACES.len());
        for place in PLACES {
            let count = text.matches(&format!("\"{}\"", place.name)).count();
            assert_eq!(count, 1, "{} in the code", place.name);
            let is_sure = text.contains(&format!("failpoint::pass(\"{}\")", place.name));
            assert_ne!(is_sure, place.may_fail, "{}", place.name);
        }
    }
}
