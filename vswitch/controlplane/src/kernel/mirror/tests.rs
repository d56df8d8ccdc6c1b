use crate::kernel::Placement::{Appended, First, Replaces};
use proptest::prelude::*;

use super::super::lines::route;
use super::{Mirror, MirrorChange};
use crate::kernel::{KernelRoute, Placement};

fn mirror(prefixes: &[&str]) -> Mirror {
    let prefixes: Vec<_> = prefixes.iter().map(|p| p.parse().expect("a prefix")).collect();
    Mirror::new(254, &prefixes)
}

fn shown(mirror: &Mirror) -> Vec<String> {
    let hop = |route: &KernelRoute| {
        route.next_hops.first().and_then(|hop| hop.gateway).map(|ip| ip.to_string())
    };
    mirror
        .best()
        .map(|(prefix, route)| format!("{prefix} {}", hop(route).unwrap_or_default()))
        .collect()
}

#[test]
fn what_lies_elsewhere_is_not_kept() {
    for line in [
        "203.0.113.0/24 via 198.51.100.1 dev eth0",
        "198.20.0.0/16 via 198.51.100.1 dev eth0",
        "198.18.2.0/24 via 198.51.100.1 dev eth0 table 100",
        "198.18.2.0/24 via 198.51.100.1 dev eth0 tos 8",
        "198.18.2.0/24 via 198.51.100.1 dev eth0 proto 86",
        "local 198.18.2.1/32 dev lo",
        "fd00:19::/32 via fd77::1 dev eth0",
    ] {
        let mut mirror = mirror(&["198.18.0.0/16", "fd00:18::/32"]);
        assert_eq!(mirror.changed(&route(line), First), MirrorChange::Same, "{line}");
        mirror.read(route(line));
        assert_eq!(mirror.best().count(), 0, "{line}");
    }
}

#[test]
fn of_chosen_protocols_alone() {
    let mut mirror = mirror(&["198.18.0.0/16"]).of(&[12, 186]);
    let by = |protocol, via| {
        route(&format!("198.18.2.0/24 via 198.51.100.{via} dev eth0 proto {protocol}"))
    };
    assert_eq!(mirror.changed(&by(4, 4), First), MirrorChange::Same);
    mirror.read(by(3, 3));
    assert_eq!(shown(&mirror), [""; 0]);
    assert_eq!(mirror.changed(&by(12, 1), First), MirrorChange::Changed);
    assert_eq!(mirror.gone(&by(4, 4)), MirrorChange::Same);
    assert_eq!(mirror.changed(&by(186, 2), Replaces), MirrorChange::Changed);
    assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.2"]);
    // Another program's takes its place: the kernel has no message for the one that went.
    assert_eq!(mirror.changed(&by(4, 4), Replaces), MirrorChange::Unclear);
}

#[test]
fn the_lowest_metric_is_what_the_kernel_uses() {
    let mut mirror = mirror(&["198.18.0.0/16"]);
    for (metric, via) in [(50, 5), (20, 2), (100, 10)] {
        let line = format!("198.18.2.0/24 via 198.51.100.{via} dev eth0 metric {metric}");
        mirror.changed(&route(&line), First);
    }
    assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.2"]);
    let gone = route("198.18.2.0/24 via 198.51.100.2 dev eth0 metric 20");
    assert_eq!(mirror.gone(&gone), MirrorChange::Changed);
    assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.5"]);
    assert_eq!(mirror.gone(&gone), MirrorChange::Same);
}

#[test]
fn several_of_one_metric_are_read_in_the_kernels_order() {
    let mut mirror = mirror(&["198.18.0.0/16"]);
    let [a, b] = [1, 2].map(|n| route(&format!("198.18.2.0/24 via 198.51.100.{n} dev eth0")));
    assert_eq!(mirror.changed(&a, First), MirrorChange::Changed);
    assert_eq!(mirror.changed(&b, Appended), MirrorChange::Unclear);
    assert_eq!(mirror.changed(&b, First), MirrorChange::Unclear);
    mirror.read(b);
    assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.1"]);
    assert_eq!(mirror.gone(&a), MirrorChange::Changed);
    assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.2"]);
    assert_eq!(mirror.changed(&a, Replaces), MirrorChange::Changed);
    assert_eq!(shown(&mirror), ["198.18.2.0/24 198.51.100.1"]);
}

#[test]
fn a_next_hop_of_several_that_goes_by_itself_is_unclear() {
    let mut mirror = mirror(&["fd00:18::/32"]);
    let both = "fd00:18:2::/64 nexthop via fd77::1 dev eth0 nexthop via fd77::2 dev eth0";
    mirror.changed(&route(both), First);
    let one = route("fd00:18:2::/64 via fd77::1 dev eth0");
    assert_eq!(mirror.gone(&one), MirrorChange::Unclear);
    assert_eq!(mirror.changed(&one, Appended), MirrorChange::Unclear);
}

#[test]
fn links_of_routes_are_used() {
    let mut mirror = mirror(&["198.18.0.0/16"]);
    mirror.changed(
        &route("198.18.2.0/24 nexthop via 198.51.100.1 dev eth0 nexthop via 198.51.100.2 dev vsw0"),
        First,
    );
    assert!(mirror.uses(2) && mirror.uses(3) && !mirror.uses(4));
}

/// The kernel's table of IPv4, as net/ipv4/fib_trie.c keeps it: a list for each destination and
/// metric.
#[derive(Default, Clone)]
struct Kernel(Vec<KernelRoute>);

impl Kernel {
    fn matching(&self, route: &KernelRoute) -> Option<usize> {
        let key = |route: &KernelRoute| (route.destination, route.metric);
        self.0.iter().position(|known| key(known) == key(route))
    }

    /// `ip route prepend`, `append` and `replace`; the event that is sent, if the kernel agrees.
    fn add(&mut self, route: KernelRoute, placement: Placement) -> Option<Event> {
        if self.0.contains(&route) {
            return None;
        }
        let first = self.matching(&route);
        match (placement, first) {
            (Replaces, Some(at)) => self.0[at] = route.clone(),
            (Appended, _) => self.0.push(route.clone()),
            (First, Some(at)) => self.0.insert(at, route.clone()),
            (Replaces | First, None) => {
                self.0.push(route.clone());
                return Some((route, Some(First)));
            }
        }
        Some((route, Some(placement)))
    }

    fn delete(&mut self, route: &KernelRoute) -> Option<Event> {
        let at = self.matching(route)?;
        Some((self.0.remove(at), None))
    }

    fn has_several(&self) -> bool {
        self.dump().has_several()
    }

    fn dump(&self) -> Mirror {
        let mut dump = mirror(&["198.18.0.0/16"]);
        self.0.iter().for_each(|route| dump.read(route.clone()));
        dump
    }
}

/// A route, and where it was put; `None` if it is gone.
type Event = (KernelRoute, Option<Placement>);

fn follow(mirror: &mut Mirror, (route, placement): &Event) -> MirrorChange {
    match placement {
        Some(placement) => mirror.changed(route, *placement),
        None => mirror.gone(route),
    }
}

fn commands() -> impl Strategy<Value = Vec<(u8, u8, u8, u8)>> {
    prop::collection::vec((0..5u8, 0..3u8, 0..2u8, 0..4u8), 0..60)
}

fn run(kernel: &mut Kernel, (what, network, metric, via): (u8, u8, u8, u8)) -> Option<Event> {
    let line = format!("198.18.{network}.0/24 via 198.51.100.{via} dev eth0 metric {metric}");
    let route = route(&line);
    match what {
        0 => kernel.add(route, First),
        1 => kernel.add(route, Appended),
        2 => kernel.add(route, Replaces),
        _ => kernel.delete(&route),
    }
}

proptest! {
    #[test]
    fn after_any_events_the_mirror_is_that_of_a_fresh_dump(commands in commands()) {
        let (mut kernel, mut mirror) = (Kernel::default(), mirror(&["198.18.0.0/16"]));
        for command in commands {
            if let Some(event) = run(&mut kernel, command)
                && follow(&mut mirror, &event) == MirrorChange::Unclear
            {
                mirror = kernel.dump();
            }
            prop_assert_eq!(&mirror, &kernel.dump());
        }
    }

    /// What happens while the table is read may be in it already, and is announced afterwards. Where
    /// there never were several of one metric, that does no harm.
    #[test]
    fn events_that_a_dump_has_in_it_already_do_no_harm(
        before in commands(), during in commands(),
    ) {
        let mut kernel = Kernel::default();
        before.into_iter().for_each(|command| drop(run(&mut kernel, command)));
        let mut several = kernel.has_several();
        let mut told = Vec::new();
        for command in during {
            told.extend(run(&mut kernel, command));
            several |= kernel.has_several();
        }
        let mut mirror = kernel.dump();
        let outcomes: Vec<_> = told.iter().map(|event| follow(&mut mirror, event)).collect();
        if !outcomes.contains(&MirrorChange::Unclear) && !several {
            prop_assert_eq!(&mirror, &kernel.dump());
        }
    }
}
